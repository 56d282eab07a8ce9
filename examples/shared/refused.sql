-- The statement before must have failed with the SQLSTATE in must_be. Written as
--
--     \set ON_ERROR_STOP off
--     DELETE FROM workflows;
--     \set ON_ERROR_STOP on
--     \set must_be 42501 \ir refused.sql
--
-- The shell compares, because the transaction may be an aborted one.
\set was :SQLSTATE
\set verdict `[ :'was' = :'must_be' ] && echo true || echo false`
\if :verdict
    \echo '   ✓ refused, as it must be:' :was
    \echo
\else
    \warn 'NOT AS PROMISED: the last statement must fail with' :must_be 'and ended with' :was
    \set ECHO none
    ROLLBACK;
    SELECT 'the example stops here'::int;
\endif
