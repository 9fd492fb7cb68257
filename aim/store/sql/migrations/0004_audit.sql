-- What `aim explain` and `aim check` ask of the audit, which only grows.
create index outcomes_target on aim.outcomes (target, room, at desc);
create index outcomes_at on aim.outcomes (at);
