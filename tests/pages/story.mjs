// The second day, as the person on call sees it: `broken` before the fix is deployed, `mended` after that. Customers go on meanwhile.
// The voucher of the basket `odd` cannot be handled by the view `total`.

import { api, assert, end, eventually, lastRecorded, operator, shoot, visited } from './kit.mjs';

const page = await operator();

// What waits for somebody is on the first page, and leads to what it is.
async function follow() {
  await page.getByText('1 sequence of total').waitFor({ timeout: 90_000 });
  await page.getByRole('link', { name: 'show' }).first().click();
  await page.getByRole('link', { name: 'odd', exact: true }).click();
  await page.getByRole('heading', { name: 'odd', exact: true }).waitFor();
}

// Retries it, and sees what comes of that.
async function retry(outcome) {
  await page.getByRole('link', { name: 'Retry…' }).click();
  await page.getByRole('button', { name: 'Retry' }).click();
  await page.getByRole('status').getByText(outcome).waitFor();
}

async function broken() {
  await eventually('it to be set aside', async () => (await api('/admin/api/parked')).data?.[0]?.state === 'parked');
  await page.getByText('1 sequence of total').waitFor({ timeout: 90_000 });
  await page.waitForResponse((answer) => answer.url().endsWith('/admin/live/overview') && answer.ok());
  await shoot(page, 'story-overview');
  await follow();
  await page.getByText('basket.redeemed, shape 1').waitFor();
  await page.locator('pre.error', { hasText: 'a voucher is worth no more than what is in the basket' }).waitFor();
  await page.getByText('parked', { exact: true }).first().waitFor();
  await page.getByRole('link', { name: 'Show the payload' }).click();
  await page.locator('pre', { hasText: '"cents": 700' }).waitFor();
  await shoot(page, 'story-sequence');
  await retry('cannot be handled still');

  // What happened: all that the request caused, and what the basket came to.
  await page.getByRole('link', { name: 'Events', exact: true }).click();
  await page.getByLabel('Correlation id').fill('a-voucher');
  await page.getByRole('button', { name: 'Search' }).click();
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.getByRole('link', { name: 'basket.redeemed', exact: true }).click();
  await page.getByText('total has set aside').waitFor();
  assert.equal(await page.locator('svg.chain a').count(), 2);
  await shoot(page, 'story-event');
  await page.getByRole('link', { name: 'basket/odd', exact: true }).first().click();
  await page.locator('#v3').getByText('basket.redeemed').waitFor();
  assert.match(await page.locator('#v3 .change').innerText(), /cents.*500.*0/s);
  await shoot(page, 'story-stream');
}

async function mended() {
  await follow();
  await retry('goes on');
  await page.getByText('Nothing is set aside').waitFor();
  await page.goto(`${process.env.ADMIN}/admin`);
  await page.getByText('Nothing waits for you').waitFor();
  await shoot(page, 'story-calm');

  await page.getByRole('link', { name: 'Views' }).click();
  const row = page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: 'total', exact: true }) });
  const version = (await api('/admin/api/views/total')).data.version;
  await row.getByRole('link', { name: 'Replay…' }).click();
  await page.getByLabel('Compare before it is read').selectOption('full');
  await page.getByLabel('At most so many events a second').fill('300');
  await page.getByLabel('Keep the version before').check();
  await page.getByRole('button', { name: 'Replay' }).click();
  await page.getByRole('status').getByText('The replay has begun').waitFor();
  await row.getByRole('progressbar').waitFor();
  await shoot(page, 'story-replay');
  await row.getByRole('cell', { name: `version ${version}, kept` }).waitFor({ timeout: 90_000 });
  assert.ok((await api('/admin/api/views/total')).data.version > version);
  await row.getByRole('link', { name: 'Roll back…' }).click();
  await page.getByRole('button', { name: 'Roll back' }).click();
  await page.getByRole('status').getByText('The version before is read again').waitFor();
  assert.equal((await api('/admin/api/views/total')).data.version, version);
  await shoot(page, 'story-views');

  await page.getByRole('link', { name: 'Audit' }).click();
  for (const action of ['parked.retry', 'view.replay', 'view.rollback']) {
    await page.getByRole('rowheader', { name: action, exact: true }).first().waitFor();
  }
  await shoot(page, 'story-audit');
  assert.equal((await lastRecorded()).action, 'view.rollback');
}

await { broken, mended }[process.argv[2]]();
for (const route of [...visited].sort()) console.log(`visited ${route}`);
await end();
