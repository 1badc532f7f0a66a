// Reads what `schema export` has written, each with what is published for that: JSON Schema with Ajv, AsyncAPI with its own parser, OpenAPI with
// ReadMe's. Prints a line for each file that is right, and fails at the first that is not. Then it tries each instance in `instances.json` (path of
// a schema, whether it fits, the instance), if there is one.
//
// usage: MODULES=DIR node validate.mjs DIR

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(`${process.env.MODULES}/`);
const Ajv = require('ajv/dist/2020').default;
const formats = require('ajv-formats').default ?? require('ajv-formats');
const { Parser } = require('@asyncapi/parser');
const openapi = require('@readme/openapi-parser');

const root = process.argv[2];
const read = (file) => JSON.parse(readFileSync(path.join(root, file), 'utf8'));

const validators = new Map();

function jsonSchema(file) {
  const schema = read(file);
  assert.equal(schema.$schema, 'https://json-schema.org/draft/2020-12/schema', file);
  const ajv = new Ajv({ strict: false, validateFormats: true, allErrors: true });
  formats(ajv);
  for (const width of ['int8', 'uint8', 'int16', 'uint16', 'uint32', 'uint64', 'uint', 'int']) ajv.addFormat(width, true);
  assert.ok(ajv.validateSchema(schema), `${file}: ${ajv.errorsText()}`);
  validators.set(file, ajv.compile(schema));
}

async function asyncapi(file) {
  const { document, diagnostics } = await new Parser().parse(JSON.stringify(read(file)));
  // 0 is an error, 1 a warning; that there is a later version is an information.
  const wrong = diagnostics.filter(({ severity }) => severity < 2);
  assert.deepEqual(wrong.map(({ message, path: at }) => `${at.join('.')}: ${message}`), [], file);
  assert.ok(document, file);
  const version = document.version();
  assert.ok(version.startsWith('3.'), version);
  const channels = document.channels().all().map((channel) => channel.id());
  console.log(`${file}: ${document.messages().all().length} messages on ${channels.join(', ')}`);
}

async function openApi(file) {
  const document = read(file);
  assert.match(document.openapi, /^3\.1\./, file);
  const result = await openapi.validate(document);
  assert.ok(result.valid, `${file}: ${JSON.stringify(result.errors, null, 2)}`);
  assert.deepEqual(result.warnings, [], file);
}

const files = readdirSync(root, { recursive: true }).filter((file) => file.endsWith('.json') && file !== 'instances.json');
assert.ok(files.length > 0, 'there is nothing to read');
for (const file of files.sort()) {
  if (file.startsWith('json-schema/')) jsonSchema(file);
  else if (file.startsWith('asyncapi')) await asyncapi(file);
  else if (file.startsWith('openapi')) await openApi(file);
  else assert.fail(`nobody knows what ${file} is`);
  console.log(`right: ${file}`);
}
if (existsSync(path.join(root, 'instances.json'))) {
  for (const [file, fits, instance] of read('instances.json')) {
    const validate = validators.get(file);
    assert.ok(validate, `no ${file}`);
    assert.equal(validate(instance), fits, `${file}: ${JSON.stringify(instance)}: ${JSON.stringify(validate.errors)}`);
  }
}
