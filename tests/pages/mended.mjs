// The cause is mended: what was set aside is tried again from the page, and goes on.

import { assert, end, eventually, lastRecorded, operator, shoot, visited, api } from './kit.mjs';

const page = await operator();
await page.getByText('1 sequence of post').waitFor();
await page.getByRole('link', { name: 'show' }).first().click();
await page.getByRole('link', { name: 'Retry all of post…' }).click();
await page.getByRole('button', { name: 'Retry all' }).click();
await page.getByRole('status').getByText('goes on').waitFor();
await page.getByText('Nothing is set aside').waitFor();
const recorded = await lastRecorded();
assert.deepEqual([recorded.action, recorded.said.all, recorded.ended.outcome], ['parked.retry', true, 'done']);
await eventually('nothing to be set aside', async () => (await api('/admin/api/parked')).data.length === 0);
await page.goto(`${process.env.ADMIN}/admin`);
await page.getByText('Nothing waits for you').waitFor();
await shoot(page, 'overview-calm');
for (const route of [...visited].sort()) console.log(`visited ${route}`);
await end();
