-- More about patterns, in PostgreSQL. The program runs this file itself, once, in one transaction.

-- auth, abuse or probe: what its failures are.
ALTER TABLE patterns ADD COLUMN kind TEXT NOT NULL DEFAULT 'auth';
-- Which versions of the program write such lines, for people.
ALTER TABLE patterns ADD COLUMN versions TEXT;
-- Who refused the logins: patterns that say the same may tell of the same ones, which count once.
ALTER TABLE patterns ADD COLUMN refused_by TEXT;
