// What the scripts that drive the pages share: a browser, who looks, and what must never happen on a page.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';

const { BROWSER, ADMIN, OPERATOR, READER, SHOTS } = process.env;
const { chromium } = await import(`${BROWSER}/node_modules/playwright-core/index.mjs`);

export { assert };

// What finds barriers on a page.
const AXE = readFileSync(`${BROWSER}/node_modules/axe-core/axe.min.js`, 'utf8');

// What a browser does by itself and no test needs.
const QUIET = [
  '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-gpu',
];

// The pages that were seen, and what was POSTed, by their routes: compared at the end with all that there are.
export const visited = new Set();

// What went wrong on a page although nobody looked for it.
const complaints = [];

const browser = await chromium.launch({ executablePath: `${BROWSER}/chromium`, args: QUIET });

// A browser of somebody: signed in with `token`, if there is one.
export async function visitor(token, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on('pageerror', (error) => complaints.push(`${page.url()}: ${error}`));
  page.on('console', (message) => {
    // A status that a script asks for is not the page's mistake, nor that a field has the focus already where the browser is slow.
    const isExpected = ['Failed to load resource', 'Autofocus processing was blocked'].some((text) => message.text().startsWith(text));
    if (!isExpected) complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${ADMIN}/`)) complaints.push(`asked ${request.url()}`);
    else visited.add(`${request.method()} ${route(new URL(request.url()).pathname)}`);
  });
  if (token) await signIn(page, token);
  return page;
}

// Signs in at the page that one is sent to.
export async function signIn(page, token) {
  await page.goto(`${ADMIN}/admin`);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
}

export const operator = () => visitor(OPERATOR);
export const reader = () => visitor(READER);

// A path as its route has it.
function route(path) {
  return path
    .replace(/^\/admin\/(subscriptions|parked|skipped|views|events|live\/subscriptions)\/[^/]+/, '/admin/$1/{name}')
    .replace(/^\/admin\/streams\/[^/]+\/[^/]+/, '/admin/streams/{category}/{id}')
    .replace(/^\/admin\/assets\/.*/, '/admin/assets/{name}');
}

// Keeps pictures of the page as it is: by day, by night, and narrow. Nothing may stick out of a narrow one, or be in somebody's way.
export async function shoot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  const size = page.viewportSize();
  for (const [kind, scheme, width] of [['light', 'light', 1280], ['dark', 'dark', 1280], ['narrow', 'light', 360]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 900 });
    await page.screenshot({ path: `${SHOTS}/${name}-${kind}.png`, fullPage: true });
    const [needed, there] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(needed <= there, `${name}: ${needed} pixels do not fit into ${there}`);
    const barriers = await findBarriers(page);
    assert.deepEqual(barriers, [], `${name}-${kind}`);
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(size);
  // Without its fonts a browser draws no letter, and says nothing.
  const width = await page.locator('h1').first().evaluate((own) => own.getBoundingClientRect().height);
  assert.ok(width > 0, `${name}: the heading cannot be seen`);
}

// What keeps somebody from using the page, where it is serious.
async function findBarriers(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => (await globalThis.axe.run()).violations);
  const serious = found.filter((own) => ['serious', 'critical'].includes(own.impact));
  return serious.flatMap((own) => own.nodes.map((node) => `${own.id}: ${node.html}: ${node.failureSummary}`));
}

// Goes to `target` with the Tab key, and follows it with Enter.
export async function press(someone, target) {
  for (let steps = 0; steps < 100; steps += 1) {
    await someone.keyboard.press('Tab');
    if (await target.evaluate((own) => own === document.activeElement)) {
      return someone.keyboard.press('Enter');
    }
  }
  throw new Error(`Tab does not lead to ${target}`);
}

// What the API says, as the operator.
export async function api(path) {
  const answer = await fetch(`${ADMIN}${path}`, { headers: { authorization: `Bearer ${OPERATOR}` } });
  return { status: answer.status, ...(await answer.json()) };
}

// Waits until `condition` gives something.
export async function eventually(what, condition) {
  const end = Date.now() + 90_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, `waited for ${what} in vain`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// The latest entry of the record.
export async function lastRecorded() {
  return (await api('/admin/api/audit?limit=1')).data[0];
}

// Ends, and says what went wrong unasked.
export async function end() {
  await browser.close();
  assert.deepEqual(complaints, []);
}
