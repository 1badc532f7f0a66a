// Streams and events: found, read, compared. There are posts `post-00` to `post-24`; `told`, which was changed 30 times and deleted;
// and two that cannot be handled, `bad` and `worse`.

import { api, assert, end, eventually, operator, press, reader, shoot, visited, visitor } from './kit.mjs';

const { ADMIN } = process.env;
const at = (path) => `${ADMIN}${path}`;
const PAGES = ['/admin/streams', '/admin/streams/post/told', '/admin/events', '/admin/events/post%2Ftold@2'];

await eventually('both to be set aside', async () => {
  const parked = (await api('/admin/api/parked')).data;
  return parked?.filter((own) => own.state === 'parked').length === 2;
});

// Nobody sees any of it.
const nobody = await visitor();
for (const path of PAGES) {
  await nobody.goto(at(path));
  assert.match(nobody.url(), /\/admin\/sign-in\?to=/, path);
  assert.equal((await nobody.request.get(at(path.replace('/admin/', '/admin/api/')))).status(), 401, path);
}
// Whoever may read sees all of it.
const wall = await reader();
for (const path of PAGES) {
  assert.equal((await wall.goto(at(path))).status(), 200, path);
  await wall.locator('h1').waitFor();
  assert.equal(await wall.locator('main form[method=post]').count(), 0, path);
}
const page = await operator();

// The streams, by category and by the beginning of the name, page by page.
await press(page, page.getByRole('link', { name: 'Streams', exact: true }));
await page.getByRole('heading', { name: 'Streams', exact: true }).waitFor();
await page.getByRole('link', { name: 'post', exact: true }).click();
await page.getByRole('link', { name: 'post/post-00', exact: true }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 28);
await shoot(page, 'streams');
await page.getByLabel('Begins with').fill('post/nothing');
await page.getByRole('button', { name: 'Show' }).click();
await page.getByText('begins so').waitFor();
await page.getByLabel('Begins with').fill('post/to');
await page.keyboard.press('Enter');
await press(page, page.getByRole('link', { name: 'post/told', exact: true }));

// The history of one: what each event changed, and the state after it.
await page.getByRole('heading', { name: 'post/told', exact: true }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 25);
const second = page.locator('#v2');
assert.match(await second.locator('.change').innerText(), /title.*A.*Draft 1/);
await second.getByText('JSON').click();
await second.locator('pre', { hasText: '"title": "Draft 1"' }).waitFor();
await shoot(page, 'stream');
await page.getByRole('link', { name: 'Later' }).click();
await page.locator('#v32').getByText('ended').waitFor();
assert.match(await page.locator('#v26 .change').innerText(), /Draft 24.*Draft 25/);
assert.equal(await page.locator('tbody tr').count(), 7);
await page.getByRole('link', { name: 'Earlier' }).click();
await page.locator('#v1').waitFor();
// The difference between two versions.
await page.getByLabel('What changed from version').fill('4');
await page.getByLabel('to', { exact: true }).fill('7');
await page.getByRole('button', { name: 'Compare' }).click();
const difference = page.getByRole('region', { name: 'From version 4 to 7' }).first();
await difference.getByRole('rowheader', { name: 'title' }).waitFor();
assert.deepEqual(await difference.locator('tbody td').allInnerTexts(), ['Draft 3', 'Draft 6']);
assert.equal(await page.locator('tr.here').getAttribute('id'), 'v7');
await shoot(page, 'difference');
await page.goto(at('/admin/streams/post/told?version=7&compare=99'));
await page.getByRole('alert').getByText('from 0 (before the first) to 32').waitFor();
await page.locator('#v7').waitFor();
await page.goto(at('/admin/streams/post/told?version=7&compare=7'));
await page.getByText('The two states are the same').waitFor();
// What cannot be read is said where it stands.
await page.goto(at('/admin/streams/post/bad'));
await page.locator('#v1 .state', { hasText: 'cannot be read' }).waitFor();
await page.locator('.message.bad').getByRole('link', { name: 'bad' }).waitFor();
await shoot(page, 'stream-unreadable');
assert.equal((await page.goto(at('/admin/streams/post/nobody'))).status(), 404);

// Events: by their streams, types and times, page by page.
await page.goto(at('/admin/events'));
assert.equal(await page.locator('tbody tr').count(), 50);
await page.getByRole('link', { name: 'Earlier' }).click();
await page.getByText('There are no earlier ones').waitFor();
await page.getByRole('link', { name: 'Newest' }).click();
await page.getByLabel('Stream').fill('post/told');
await page.getByLabel('Type').fill('post.deleted');
await page.getByRole('button', { name: 'Search' }).click();
await page.getByRole('rowheader', { name: 'post.deleted' }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 1);
const deleted = (await api('/admin/api/events?type=post.deleted')).data[0];
await page.goto(at(`/admin/events?from=2020-01-01T00:00&until=${deleted.time}`));
assert.equal(await page.getByLabel('From (UTC)').inputValue(), '2020-01-01T00:00');
await page.getByRole('rowheader', { name: 'post.updated' }).first().waitFor();
assert.equal(await page.getByRole('rowheader', { name: 'post.deleted' }).count(), 0);
await shoot(page, 'events');
// What makes no sense is said at its field, and is still there.
await page.goto(at('/admin/events?stream=nonsense&from=soon&event=what'));
await page.locator('#from-error').getByText('soon is no time').waitFor();
await page.locator('#event-error').waitFor();
await page.goto(at('/admin/events?stream=nonsense&type=post.created'));
await page.locator('#stream-error').getByText('post/7f3a').waitFor();
assert.equal(await page.getByLabel('Stream').inputValue(), 'nonsense');
assert.equal(await page.getByLabel('Stream').getAttribute('aria-invalid'), 'true');
await shoot(page, 'events-problem');

// One event, by each of its names; what it has, what it belongs to, where it leads.
for (const name of [deleted.id, 'post/told@32', `${deleted.partition}:${deleted.position}`]) {
  await page.goto(at('/admin/events'));
  await page.getByLabel('One event').fill(name);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'post.deleted' }).waitFor();
  await page.getByText(deleted.id).first().waitFor();
}
await page.locator('pre', { hasText: '"Draft 30"' }).waitFor();
await page.locator('svg.chain a').last().waitFor();
assert.equal(await page.locator('svg.chain a').count(), 2);
assert.equal(await page.locator('svg.chain .here').count(), 1);
await shoot(page, 'event');
await page.getByRole('link', { name: deleted.correlationid }).click();
await page.getByRole('rowheader', { name: 'post.deleted' }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 1);
await page.getByRole('link', { name: 'post/told', exact: true }).click();
assert.equal(await page.locator('tr.here').getAttribute('id'), 'v32');
assert.equal((await page.goto(at('/admin/events/post%2Fnobody@1'))).status(), 404);
assert.equal((await page.goto(at('/admin/events/nonsense'))).status(), 400);

for (const route of [...visited].sort()) console.log(`visited ${route}`);
await end();
