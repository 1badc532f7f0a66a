// A program with a reaction, `copy`, that has copied the note `n` to `copy-n`: what caused what, as a picture; and the reaction told to
// go on elsewhere.

import { api, assert, end, eventually, lastRecorded, operator, press, reader, shoot, visited } from './kit.mjs';

const { ADMIN } = process.env;
const at = (path) => `${ADMIN}${path}`;

await eventually('the copy', async () => (await api('/admin/api/events/note%2Fcopy-n@1')).status === 200);
const page = await operator();

// The picture of the chain: command, event, command, event, from left to right; with the keyboard from one to the next.
await page.goto(at('/admin/events/note%2Fn@1'));
const boxes = page.locator('svg.chain a');
assert.equal(await boxes.count(), 4);
const lefts = await boxes.evaluateAll((all) => all.map((own) => own.getBoundingClientRect().left));
assert.deepEqual([...lefts].sort((a, b) => a - b), lefts);
await shoot(page, 'chain');
await page.getByText('The same as a list').click();
assert.equal(await page.locator('.list ul ul ul ul li').count(), 1);
await page.locator('.list strong', { hasText: 'note/n@1' }).waitFor();
await page.goto(at('/admin/events/note%2Fn@1'));
await press(page, boxes.last());
await page.getByRole('link', { name: 'note/copy-n' }).first().waitFor();
await page.locator('svg.chain .here', { hasText: 'note/copy-n@1' }).waitFor();
// A command leads to all events that it caused.
await page.locator('svg.chain a').first().click();
await page.getByLabel('Causation id').waitFor();
await page.getByRole('link', { name: 'note/n', exact: true }).waitFor();
assert.equal(await page.locator('tbody tr').count(), 1);

// The restart of a reaction.
const wall = await reader();
await wall.goto(at('/admin/subscriptions/copy'));
await wall.locator('h1').waitFor();
assert.equal(await wall.getByRole('link', { name: 'Restart…' }).count(), 0);
assert.equal((await wall.goto(at('/admin/subscriptions/copy/restart'))).status(), 403);
const form = { form: await wall.locator('input[name=form]').first().getAttribute('value'), from: 'beginning', reason: 'x' };
assert.equal((await wall.request.post(at('/admin/subscriptions/copy/restart'), { form })).status(), 403);
assert.deepEqual((await api('/admin/api/audit')).data, []);
await page.goto(at('/admin/subscriptions/note'));
await page.getByRole('link', { name: 'Pause…' }).waitFor();
assert.equal(await page.getByRole('link', { name: 'Restart…' }).count(), 0);
await page.goto(at('/admin/subscriptions/copy'));
await press(page, page.getByRole('link', { name: 'Restart…' }));
await page.getByRole('heading', { name: 'Restart copy?' }).waitFor();
await shoot(page, 'restart');
await page.getByRole('link', { name: 'Cancel' }).click();
await page.getByRole('link', { name: 'Restart…' }).click();
await page.getByLabel('It goes on').selectOption('there');
await page.getByLabel('Reason').fill('it missed some');
await page.getByRole('button', { name: 'Restart' }).click();
await page.getByRole('alert').getByText('Nothing was done').waitFor();
assert.deepEqual((await api('/admin/api/audit')).data, []);
await page.goto(at('/admin/subscriptions/copy/restart'));
await page.getByLabel('It goes on').selectOption('beginning');
await page.getByLabel('Reason').fill('it missed some');
await page.getByRole('button', { name: 'Restart' }).click();
await page.getByRole('status').getByText('It goes on from there').waitFor();
const recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.target, recorded.by, recorded.via, recorded.said.from, recorded.said.reason, recorded.ended.outcome],
  ['reaction.restart', 'copy', 'ann', 'page', 'beginning', 'it missed some', 'done']);
await page.getByText('view', { exact: true }).or(page.getByText('reaction', { exact: true })).first().waitFor();
await shoot(page, 'reaction');

for (const route of [...visited].sort()) console.log(`visited ${route}`);
await end();
