import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { users, workflows } from '../src/schema.ts';
import { createDatabase } from './database.ts';

let database: Awaited<ReturnType<typeof createDatabase>>;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

test('a workflow is its tenant’s alone', () =>
  database.undone(async (tx, become) => {
    await become('acme');
    const [ada] = await tx.select().from(users);
    await tx.insert(workflows).values({ name: 'acme: test', createdBy: ada!.id });
    assert.equal(await tx.$count(workflows), 1);

    await become('globex');
    assert.equal(await tx.$count(workflows), 0);

    await become('acme');
    assert.equal(await tx.$count(workflows), 1);
  }));

test('nothing of the test before is left', () =>
  database.undone(async (tx, become) => {
    await become('acme');
    assert.equal(await tx.$count(workflows), 0);
  }));
