// Every page, and every action but a retry that succeeds: by who may, by who may not, by nobody, by a page of another site.
// There are posts `post-00` to `post-24`, and two that cannot be handled: `bad` and `worse`.

import { api, assert, end, eventually, lastRecorded, operator, press, reader, shoot, visited, visitor } from './kit.mjs';

const { ADMIN } = process.env;
const at = (path) => `${ADMIN}${path}`;

// Waits until both are set aside for good.
await eventually('both to be set aside', async () => {
  const parked = (await api('/admin/api/parked')).data;
  return parked?.filter((own) => own.state === 'parked').length === 2;
});

// What was done before.
const before = (await api('/admin/api/audit')).data;
const untouched = async () => assert.deepEqual((await api('/admin/api/audit')).data, before);

// Nobody is sent to the sign-in, and from there to where they wanted to.
const nobody = await visitor();
await nobody.goto(at('/admin/views/post?query=sort%3Did'));
assert.match(nobody.url(), /\/admin\/sign-in\?to=/);
await shoot(nobody, 'sign-in');
await nobody.getByLabel('Token').fill('a token that nobody has');
await nobody.getByRole('button', { name: 'Sign in' }).click();
await nobody.getByText('Nobody has this token').waitFor();
await nobody.getByLabel('Token').fill(process.env.READER);
await nobody.getByRole('button', { name: 'Sign in' }).click();
await nobody.getByRole('heading', { name: 'post', exact: true }).waitFor();
assert.match(nobody.url(), /\/admin\/views\/post\?query=sort%3Did$/);
await nobody.getByRole('button', { name: 'Sign out' }).click();
await nobody.goto(at('/admin/audit'));
assert.match(nobody.url(), /\/admin\/sign-in/);

const page = await operator();
const wall = await reader();

// The overview says what waits for somebody, and is renewed by itself.
await page.getByText('2 sequences of post').waitFor();
await page.waitForResponse((answer) => answer.url().endsWith('/admin/live/overview') && answer.ok());
for (const backend of ['log', 'bus', 'read models']) {
  await page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: backend, exact: true }) }).getByText('up').waitFor();
}
await shoot(page, 'overview');

// What is POSTed without being asked for by a page of one's own is refused, and a reader is told so.
const FORMS = [
  ['/admin/subscriptions/post/pause', {}],
  ['/admin/subscriptions/post/resume', {}],
  ['/admin/subscriptions/post/restart', { from: 'now', reason: 'x' }],
  ['/admin/parked/post/retry', {}],
  ['/admin/parked/post/skip', { sequence: 'bad', reason: 'x', partition: '0', position: '1' }],
  ['/admin/views/post/replay', { compare: 'none' }],
  ['/admin/views/post/rollback', {}],
  ['/admin/views/post/clean', {}],
];
const token = async (someone) => {
  await someone.goto(at('/admin'));
  return someone.locator('input[name=form]').first().getAttribute('value');
};
const [own, walls] = [await token(page), await token(wall)];
assert.notEqual(own, walls);
for (const [path, form] of FORMS) {
  const send = (someone, fields, headers = {}) =>
    someone.request.post(at(path), { form: { ...form, ...fields }, headers, maxRedirects: 0 });
  for (const [who, answer] of [
    ['no form token', await send(page, {})],
    ["a reader's form token", await send(page, { form: walls })],
    ['a page of another site', await send(page, { form: own }, { 'sec-fetch-site': 'cross-site' })],
    ['another origin', await send(page, { form: own }, { origin: 'http://evil.example' })],
    ['a reader', await send(wall, { form: walls })],
  ]) {
    assert.equal(answer.status(), 403, `${path} with ${who}`);
    assert.match(await answer.text(), /Nothing was done/, `${path} with ${who}`);
  }
  assert.equal((await send(await visitor(), { form: own })).status(), 401, `${path} by nobody`);
  // A reader does not even get the question.
  const asked = await wall.goto(at(path));
  assert.equal(asked.status(), 403, `${path} for a reader`);
}
await untouched();

// A reader sees all of it, and nothing to act with.
for (const path of ['/admin', '/admin/subscriptions', '/admin/subscriptions/post', '/admin/parked?subscription=post',
  '/admin/parked/post?sequence=bad', '/admin/views', '/admin/views/post', '/admin/audit', '/admin/skipped/post']) {
  await wall.goto(at(path));
  await wall.locator('h1').waitFor();
  assert.equal(await wall.locator('main a', { hasText: '…' }).count(), 0, `${path} offers a reader an action`);
}
await wall.getByText('(read only)').waitFor();

// What does not exist is a page that says so.
assert.equal((await page.goto(at('/admin/views/nobody'))).status(), 404);
await page.getByText('There is no such page').waitFor();
await shoot(page, 'missing');

// Pause and resume, with the keyboard alone.
await page.goto(at('/admin/subscriptions'));
await page.waitForResponse((answer) => answer.url().endsWith('/admin/live/subscriptions') && answer.ok());
await shoot(page, 'subscriptions');
await press(page, page.getByRole('link', { name: 'post', exact: true }));
await page.getByRole('heading', { name: 'post', exact: true }).waitFor();
await press(page, page.getByRole('link', { name: 'Pause…' }));
await page.getByRole('heading', { name: 'Pause post?' }).waitFor();
await shoot(page, 'pause');
await press(page, page.getByRole('link', { name: 'Cancel' }));
await page.getByRole('link', { name: 'Pause…' }).waitFor();
await untouched();
await press(page, page.getByRole('link', { name: 'Pause…' }));
await page.getByLabel('Reason').focus();
await page.keyboard.type('the mail server <moves> & "quotes"');
await page.keyboard.press('Enter');
await page.getByRole('status').getByText('paused').waitFor();
let recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.target, recorded.by, recorded.via, recorded.ended.outcome],
  ['subscription.pause', 'post', 'ann', 'page', 'done']);
assert.equal(recorded.said.reason, 'the mail server <moves> & "quotes"');
await page.getByText('the mail server <moves> & "quotes"').first().waitFor();
await page.waitForResponse((answer) => answer.url().endsWith('/admin/live/subscriptions/post') && answer.ok());
await shoot(page, 'subscription');
await press(page, page.getByRole('link', { name: 'Resume…' }));
await press(page, page.getByRole('button', { name: 'Resume' }));
await page.getByRole('status').getByText('It goes on').waitFor();
assert.equal((await lastRecorded()).action, 'subscription.resume');

// What is set aside: seen, tried again in vain, skipped.
await page.goto(at('/admin/parked'));
await page.getByRole('link', { name: 'worse' }).waitFor();
await page.getByLabel('Subscription').selectOption('post');
await page.getByRole('button', { name: 'Show' }).click();
await page.getByRole('link', { name: 'Retry all of post…' }).waitFor();
await shoot(page, 'parked');
await page.getByRole('link', { name: 'bad', exact: true }).click();
await page.getByRole('heading', { name: 'bad' }).waitFor();
await page.getByText('post.created, shape 1').waitFor();
assert.equal(await page.locator('pre:not(.error)', { hasText: '"poison"' }).count(), 0);
for (const [link, heading] of [['post.created', 'post.created'], ['post/bad', 'post/bad']]) {
  await page.getByRole('link', { name: link, exact: true }).click();
  await page.getByRole('heading', { name: heading, exact: true }).waitFor();
  await page.locator('.message.bad', { hasText: 'It waits' }).getByRole('link', { name: 'bad', exact: true }).click();
  await page.getByRole('heading', { name: 'bad', exact: true }).waitFor();
}
await page.getByRole('link', { name: 'Show the payload' }).click();
await page.locator('pre:not(.error)', { hasText: '"poison"' }).waitFor();
await shoot(page, 'sequence');
await page.getByRole('link', { name: 'Retry…' }).click();
await page.getByRole('link', { name: 'Cancel' }).click();
await page.getByRole('link', { name: 'Retry…' }).click();
await shoot(page, 'retry');
await page.getByRole('button', { name: 'Retry' }).click();
await page.getByRole('status').getByText('cannot be handled still').waitFor();
recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.said.sequence], ['parked.retry', 'bad']);
await page.goto(at('/admin/parked/post?sequence=worse'));
await page.getByRole('link', { name: 'Skip this event…' }).click();
await shoot(page, 'skip');
const reason = page.getByLabel('Reason');
assert.equal(await reason.evaluate((field) => field.required), true);
await reason.fill('its writer was broken');
await page.getByRole('button', { name: 'Skip' }).click();
await page.getByRole('status').getByText('The event was skipped').waitFor();
recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.said.reason], ['parked.skip', 'its writer was broken']);
await page.getByRole('link', { name: 'What was skipped of post' }).click();
await page.getByText('its writer was broken').waitFor();
await shoot(page, 'skipped');
await page.getByRole('row').filter({ hasText: 'its writer was broken' }).getByRole('link').click();
await page.getByRole('heading', { name: 'post.created' }).waitFor();

// The views: browsed with the query language.
await page.goto(at('/admin/views/post'));
await page.getByLabel('Query').fill('id[prefix]=post-0&sort=-id&limit=6');
await page.getByRole('button', { name: 'Look' }).click();
await page.getByRole('cell', { name: 'post-09' }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 6);
await page.getByText('JSON').first().click();
await page.locator('pre', { hasText: '"author_name": "Ann"' }).first().waitFor();
await shoot(page, 'view');
await page.getByRole('link', { name: 'History' }).first().click();
await page.getByRole('heading', { name: 'post/post-09', exact: true }).waitFor();
await page.goBack();
await page.getByRole('link', { name: 'Next page' }).click();
await page.getByRole('cell', { name: 'post-00' }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 4);
await page.getByLabel('Query').fill('nothing[like]=it');
await page.getByRole('button', { name: 'Look' }).click();
await page.getByRole('alert').getByText('nothing').waitFor();
await shoot(page, 'view-problem');

// Replayed with its progress, rolled back, let go of.
await page.goto(at('/admin/views'));
const row = page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: 'post', exact: true }) });
const version = (await api('/admin/api/views/post')).data.version;
await row.getByRole('link', { name: 'Replay…' }).click();
await shoot(page, 'replay');
await page.getByLabel('Compare before it is read').selectOption('full');
await page.getByLabel('At most so many events a second').fill('10');
await page.getByLabel('Keep the version before').check();
await page.getByRole('button', { name: 'Replay' }).click();
await page.getByRole('status').getByText('The replay has begun').waitFor();
await row.getByRole('progressbar').waitFor();
await shoot(page, 'views-replay');
recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.said.compare, recorded.said.throttle, recorded.ended.outcome],
  ['view.replay', 'full', 10, 'begun']);
// The page shows by itself that it is done.
await row.getByRole('cell', { name: `version ${version}, kept` }).waitFor();
assert.equal((await api('/admin/api/views/post')).data.version > version, true);
await row.getByRole('link', { name: 'Roll back…' }).click();
await shoot(page, 'rollback');
await page.getByRole('button', { name: 'Roll back' }).click();
await page.getByRole('status').getByText('The version before is read again').waitFor();
assert.equal((await api('/admin/api/views/post')).data.version, version);
await shoot(page, 'views');
await row.getByRole('link', { name: 'Let go of the version before…' }).click();
await page.getByRole('button', { name: 'Let go' }).click();
await page.getByRole('status').getByText('was let go of').waitFor();
assert.equal((await api('/admin/api/views/post')).data.previous, null);
await page.goto(at('/admin/views/post/replay'));
await page.getByLabel('One document alone').fill('post-03');
await page.getByRole('button', { name: 'Replay' }).click();
await page.getByRole('status').getByText('was replayed').waitFor();
await row.locator('.state', { hasText: 'done' }).waitFor();

// Who did what.
await page.goto(at('/admin/audit'));
assert.equal(await page.locator('tbody tr').count(), before.length + 8);
await page.getByText('its writer was broken').waitFor();
await shoot(page, 'audit');
await page.getByRole('row').filter({ hasText: 'its writer was broken' }).getByRole('link').click();
await page.getByRole('heading', { name: 'tidelog.operation-asked' }).waitFor();
await page.locator('pre', { hasText: 'its writer was broken' }).waitFor();

// A session that has ended says so where a page renews itself.
await wall.goto(at('/admin'));
await wall.context().clearCookies();
await wall.getByText('Your session has ended').waitFor();

for (const route of [...visited].sort()) console.log(`visited ${route}`);
await end();
