-- homing_1_publish_once: appends a message unless its idempotency key was seen.
--   KEYS  1 inbox  2 once
--   ARGV  1 seconds to remember the key  2.. field, value, ...
--   reply {entry id, 1 if it was appended now, 0 if the key was seen}
-- A function because the entry and its key must both exist or neither: a retry after a crash in between would append
-- twice or never. Refused when memory is full (no allow-oom), before anything was written.
local function publish_once(keys, argv)
  local inbox, once = keys[1], keys[2]
  local seen = redis.call('GET', once)
  if seen then return { seen, 0 } end
  local fields = {}
  for i = 2, #argv do fields[i - 1] = argv[i] end
  local id = redis.call('XADD', inbox, '*', unpack(fields))
  redis.call('SET', once, id, 'EX', argv[1])
  return { id, 1 }
end

redis.register_function('homing_1_publish_once', publish_once)
