import { relations, sql } from 'drizzle-orm';
import { foreignKey, index, integer, jsonb, numeric, pgSchema, primaryKey, text, timestamp, unique, uuid } from 'drizzle-orm/pg-core';

export const platform = pgSchema('agent_platform');

/**
 * The bound tenant by default: an insert leaves it out. Keys and references begin with it. A table that has it says `enableRLS()`, so that
 * it is closed until it is protected, and drizzle-kit does not open it.
 */
const tenantId = () => uuid('tenant_id').notNull().default(sql`current_tenant()`);
const id = () => uuid('id').notNull().defaultRandom();
const moment = (name: string) => timestamp(name, { withTimezone: true });

export const users = platform.table(
  'users',
  {
    tenantId: tenantId(),
    id: id(),
    externalAuthId: text('external_auth_id').notNull(),
    email: text('email').notNull(),
    displayName: text('display_name').notNull(),
    name: text('name').notNull(),
    role: text('role', { enum: ['owner', 'admin', 'member'] }).notNull().default('member'),
    lastLoginAt: moment('last_login_at'),
    createdAt: moment('created_at').notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ name: 'users_pkey', columns: [t.tenantId, t.id] }),
    unique('users_tenant_id_email_key').on(t.tenantId, t.email),
    unique('users_tenant_id_external_auth_id_key').on(t.tenantId, t.externalAuthId),
  ],
).enableRLS();

export const agents = platform.table(
  'agents',
  {
    tenantId: tenantId(),
    id: id(),
    name: text('name').notNull(),
    config: jsonb('config').$type<Record<string, unknown>>().notNull().default({}),
    createdAt: moment('created_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ name: 'agents_pkey', columns: [t.tenantId, t.id] }), unique('agents_tenant_id_name_key').on(t.tenantId, t.name)],
).enableRLS();

export const workflows = platform.table(
  'workflows',
  {
    tenantId: tenantId(),
    id: id(),
    createdBy: uuid('created_by').notNull(),
    name: text('name').notNull(),
    description: text('description'),
    status: text('status', { enum: ['draft', 'active', 'paused', 'archived'] }).notNull().default('draft'),
    config: jsonb('config').$type<Record<string, unknown>>().notNull().default({}),
    temporalWorkflowId: text('temporal_workflow_id'),
    temporalRunId: text('temporal_run_id'),
    createdAt: moment('created_at').notNull().defaultNow(),
    updatedAt: moment('updated_at').notNull().defaultNow().$onUpdate(() => new Date()),
  },
  (t) => [
    primaryKey({ name: 'workflows_pkey', columns: [t.tenantId, t.id] }),
    unique('workflows_tenant_id_name_key').on(t.tenantId, t.name),
    foreignKey({ name: 'workflows_tenant_id_created_by_fkey', columns: [t.tenantId, t.createdBy], foreignColumns: [users.tenantId, users.id] }),
    index('workflows_tenant_id_status_idx').on(t.tenantId, t.status),
    index('workflows_tenant_id_created_by_idx').on(t.tenantId, t.createdBy),
  ],
).enableRLS();

export const executions = platform.table(
  'workflow_executions',
  {
    tenantId: tenantId(),
    id: id(),
    workflowId: uuid('workflow_id').notNull(),
    status: text('status', { enum: ['running', 'completed', 'failed', 'cancelled'] }).notNull().default('running'),
    startedAt: moment('started_at').notNull().defaultNow(),
    completedAt: moment('completed_at'),
    input: jsonb('input').$type<Record<string, unknown>>().notNull().default({}),
    output: jsonb('output').$type<Record<string, unknown>>(),
    error: text('error'),
    agentMinutes: numeric('agent_minutes_consumed', { precision: 10, scale: 2, mode: 'number' }).notNull().default(0),
    taskCount: integer('task_count').notNull().default(0),
  },
  (t) => [
    primaryKey({ name: 'workflow_executions_pkey', columns: [t.tenantId, t.id] }),
    foreignKey({
      name: 'workflow_executions_tenant_id_workflow_id_fkey',
      columns: [t.tenantId, t.workflowId],
      foreignColumns: [workflows.tenantId, workflows.id],
    }),
    index('workflow_executions_tenant_id_workflow_id_idx').on(t.tenantId, t.workflowId),
    index('workflow_executions_tenant_id_started_at_idx').on(t.tenantId, t.startedAt),
  ],
).enableRLS();

export const notes = platform.table(
  'notes',
  {
    tenantId: tenantId(),
    id: id(),
    workflowId: uuid('workflow_id').notNull(),
    body: text('body').notNull(),
    createdAt: moment('created_at').notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ name: 'notes_pkey', columns: [t.tenantId, t.id] }),
    foreignKey({
      name: 'notes_tenant_id_workflow_id_fkey',
      columns: [t.tenantId, t.workflowId],
      foreignColumns: [workflows.tenantId, workflows.id],
    }).onDelete('cascade'),
    index('notes_tenant_id_workflow_id_idx').on(t.tenantId, t.workflowId),
  ],
).enableRLS();

/** Where COPY goes, which PostgreSQL refuses under row security: no tenant column, no protection, and no rows outside of a transaction. */
export const agentsImport = platform.table('agents_import', {
  name: text('name').notNull(),
  config: jsonb('config').$type<Record<string, unknown>>().notNull(),
});

export const workflowRelations = relations(workflows, ({ one, many }) => ({
  creator: one(users, { fields: [workflows.tenantId, workflows.createdBy], references: [users.tenantId, users.id] }),
  executions: many(executions),
  notes: many(notes),
}));

export const executionRelations = relations(executions, ({ one }) => ({
  workflow: one(workflows, { fields: [executions.tenantId, executions.workflowId], references: [workflows.tenantId, workflows.id] }),
}));

export const noteRelations = relations(notes, ({ one }) => ({
  workflow: one(workflows, { fields: [notes.tenantId, notes.workflowId], references: [workflows.tenantId, workflows.id] }),
}));
