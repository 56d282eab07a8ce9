CREATE UNLOGGED TABLE "agent_platform"."agents_import" (
	"name" text NOT NULL,
	"config" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "agent_platform"."notes" (
	"tenant_id" uuid DEFAULT current_tenant() NOT NULL,
	"id" uuid DEFAULT gen_random_uuid() NOT NULL,
	"workflow_id" uuid NOT NULL,
	"body" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "notes_pkey" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
ALTER TABLE "agent_platform"."notes" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "agent_platform"."notes" ADD CONSTRAINT "notes_tenant_id_workflow_id_fkey" FOREIGN KEY ("tenant_id","workflow_id") REFERENCES "agent_platform"."workflows"("tenant_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "notes_tenant_id_workflow_id_idx" ON "agent_platform"."notes" USING btree ("tenant_id","workflow_id");--> statement-breakpoint

-- By hand: every tenant's users at once, which the role of migrations may do.
ALTER TABLE "agent_platform"."users" ADD COLUMN "display_name" text;--> statement-breakpoint
UPDATE "agent_platform"."users" SET "display_name" = initcap(split_part("email", '@', 1));--> statement-breakpoint
ALTER TABLE "agent_platform"."users" ALTER COLUMN "display_name" SET NOT NULL;--> statement-breakpoint

-- By hand: whose the tables are, and who uses them.
ALTER TABLE "agent_platform"."agents_import" OWNER TO "owner";--> statement-breakpoint
ALTER TABLE "agent_platform"."notes" OWNER TO "owner";--> statement-breakpoint
GRANT SELECT, INSERT, DELETE ON "agent_platform"."agents_import" TO "app";--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE, DELETE ON "agent_platform"."notes" TO "app";--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE ON "agent_platform"."notes" TO "client";
