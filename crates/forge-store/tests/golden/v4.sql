PRAGMA user_version=4;
CREATE TABLE runs (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  last_seq INTEGER NOT NULL,
  task TEXT NOT NULL,
  repo TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  status TEXT NOT NULL,
  waiting_for TEXT,
  phase TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  iterations INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  cost_pico_usd INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  limit_kind TEXT,
  error_kind TEXT,
  error_message TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  completed_at INTEGER
);
CREATE INDEX runs_by_time ON runs (created_at);
CREATE INDEX runs_by_status ON runs (status, created_at);
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL
);
CREATE VIEW journal AS
  SELECT runs.id AS run, events.id & 4294967295 AS seq, events.at, events.kind, events.data
  FROM runs JOIN events ON events.id >> 32 = runs.no;
CREATE TABLE blobs (
  no INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  bytes BLOB NOT NULL
);
CREATE TABLE inbox (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  command TEXT,
  taken INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX inbox_waiting ON inbox (run, no) WHERE taken = 0;
CREATE TABLE accounts (
  name TEXT PRIMARY KEY,
  spent INTEGER NOT NULL,
  reserved INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE reservations (
  run INTEGER NOT NULL,
  effect INTEGER NOT NULL,
  account TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (run, effect, account)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
  run INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state BLOB NOT NULL
);
CREATE TABLE queue_items (
  run TEXT PRIMARY KEY,
  priority INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL
, root TEXT, until INTEGER) WITHOUT ROWID;
CREATE TABLE cooldowns (
  provider TEXT PRIMARY KEY,
  failures INTEGER NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,
  credential TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE provider_health (
  provider TEXT PRIMARY KEY,
  ok INTEGER NOT NULL,
  message TEXT NOT NULL,
  latency_ms INTEGER NOT NULL,
  at INTEGER NOT NULL,
  configuration TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE routing_weights (
  task_type TEXT NOT NULL,
  tier TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  weight REAL NOT NULL,
  success_count INTEGER NOT NULL,
  total_count INTEGER NOT NULL,
  last_updated INTEGER NOT NULL,
  PRIMARY KEY (task_type, tier, provider, model)
) WITHOUT ROWID;
CREATE TABLE feed (
  position INTEGER PRIMARY KEY,
  first_event INTEGER NOT NULL,
  events INTEGER NOT NULL
);
CREATE TABLE deleted_numbers (
  run INTEGER NOT NULL,
  position INTEGER NOT NULL
);
CREATE TRIGGER run_deleted AFTER DELETE ON runs BEGIN
  UPDATE deleted_numbers SET run = max(run, old.no);
END;
CREATE TRIGGER feed_deleted AFTER DELETE ON feed BEGIN
  UPDATE deleted_numbers SET position = max(position, old.position);
END;
CREATE INDEX queue_open ON queue_items (priority DESC, created_at)
  WHERE status IN ('queued', 'processing') OR (status = 'parked' AND until IS NOT NULL);
INSERT INTO accounts VALUES ('day',25,30);
INSERT INTO blobs VALUES (1,X'239F59ED55E737C77147CF55AD0C1B030B6D7EE748A7426952F9B852D5A935E5',X'7061796C6F6164');
INSERT INTO checkpoints VALUES (1,2,1,X'7B7D');
INSERT INTO cooldowns VALUES ('openai',2,'rate_limit','429',5,60000005,'c0ffee');
INSERT INTO deleted_numbers VALUES (0,0);
INSERT INTO events VALUES (4294967297,1767225601000000,'commanded','{"kind":"commanded","id":"00000000-0000-0000-0000-000000000001","command":{"command":"steer","text":"event 1"}}');
INSERT INTO events VALUES (4294967298,1767225602000000,'commanded','{"kind":"commanded","id":"00000000-0000-0000-0000-000000000002","command":{"command":"steer","text":"event 2"}}');
INSERT INTO events VALUES (4294967299,1767225603000000,'commanded','{"kind":"commanded","id":"00000000-0000-0000-0000-000000000003","command":{"command":"steer","text":"event 3"}}');
INSERT INTO feed VALUES (3,4294967297,3);
INSERT INTO inbox VALUES (1,'00000000-0000-0000-0000-000000000007',1,'{"command":"pause"}',0);
INSERT INTO provider_health VALUES ('ollama',0,'nobody answers',3,9,'abc');
INSERT INTO queue_items VALUES ('01920000-0000-7000-8000-000000000001',2,1767225601000000,'processing',1,'01920000-0000-7000-8000-000000000001',NULL);
INSERT INTO reservations VALUES (1,2,'day',30);
INSERT INTO routing_weights VALUES ('code','hard','openai','a',0.5,4,6,7);
INSERT INTO runs VALUES (1,'01920000-0000-7000-8000-000000000001',3,'Fix the failing test','/home/ada/project','solo','running',NULL,'coding','scripted','scripted-1',0,0,0,25,0,NULL,NULL,NULL,1767225600000000,1767225603000000,NULL);
