"""Settings by purpose: `dev` (embedded, no server needed), `prod` (PostgreSQL and Redis), `test`."""
