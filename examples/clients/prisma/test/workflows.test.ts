import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { db } from '../src/tenancy.ts';
import { createDatabase } from './database.ts';

let database: Awaited<ReturnType<typeof createDatabase>>;
before(async () => {
  database = await createDatabase();
});
after(() => database.drop());

test('a workflow is its tenant’s alone', () =>
  database.undone('acme', async () => {
    const ada = await db().user.findFirstOrThrow();
    await db().workflow.create({ data: { name: 'acme: test', createdBy: ada.id } });
    assert.equal(await db().workflow.count(), 1);

    await database.become('globex');
    assert.equal(await db().workflow.count(), 0);

    await database.become('acme');
    assert.equal(await db().workflow.count(), 1);
  }));

test('nothing of the test before is left', () =>
  database.undone('acme', async () => {
    assert.equal(await db().workflow.count(), 0);
  }));
