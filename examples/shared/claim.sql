-- The claim in "claim" must be true, that is the variable "holds", which a query before set by \gset.
\if :holds
    \echo '   ✓' :claim
\else
    \warn 'NOT AS PROMISED:' :claim
    \set ECHO none
    ROLLBACK;
    SELECT 'the example stops here'::int;
\endif
