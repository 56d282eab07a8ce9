-- The tables that were there before Drizzle came (../../../agent_platform/schema.sql): meta/0000_snapshot.json knows them, nothing is to be run.
SELECT;
