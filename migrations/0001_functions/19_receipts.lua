-- What becomes of messages whose producers ask (field "receipt" of the entry): told on one stream for all producers,
-- recorded beside each message, and waited for. See also src/delivery/receipts.rs.

-- homing_1_announce: tells what became of a device's messages.
--   KEYS  1 receipts
--   ARGV  1 length that the stream may have  2 user  3 device  4.. id, event, key or "", ...
--   reply number of entries
-- A function, and one that memory may not refuse: it stands before the XACK in a pipeline, and a message must not be
-- acknowledged untold. The stream is bounded.
local function announce(keys, argv)
  local now = whole(now_ms())
  for i = 4, #argv, 3 do
    local fields = { 'user', argv[2], 'device', argv[3], 'id', argv[i], 'event', argv[i + 1], 'at_ms', now }
    if argv[i + 2] ~= '' then fields[#fields + 1], fields[#fields + 2] = 'key', argv[i + 2] end
    redis.call('XADD', keys[1], 'MAXLEN', '~', argv[1], '*', unpack(fields))
  end
  return (#argv - 3) / 3
end

redis.register_function { function_name = 'homing_1_announce', callback = announce, flags = { 'allow-oom' } }

-- homing_1_record: records when something became of a device's messages, and tells who waits for it.
--   KEYS  the receipt of each message
--   ARGV  1 seconds to keep a record  2 channel prefix  3 device  4.. event, 1 if for this device only else 0, ...
--   reply for each receipt 1, or 0 if it was recorded before
-- A receipt is a hash: "<event> <device>" -> Unix ms by Redis's clock, the first time; "aim" -> the only device that the
-- message is for; "waiting" -> "<owner>#<token> ...", who waits.
-- A function because who begins to wait must either find the record or be told of it.
local function record(keys, argv)
  local seconds, channels, device, now = argv[1], argv[2], argv[3], whole(now_ms())
  local fresh = {}
  for i, receipt in ipairs(keys) do
    local event, aimed = argv[2 + 2 * i], argv[3 + 2 * i]
    fresh[i] = redis.call('HSETNX', receipt, event .. ' ' .. device, now)
    if fresh[i] == 1 then
      if aimed == '1' then redis.call('HSET', receipt, 'aim', device) end
      redis.call('EXPIRE', receipt, seconds)
      if event ~= 'delivered' then
        for waiting in string.gmatch(redis.call('HGET', receipt, 'waiting') or '', '%S+') do
          local owner, token = string.match(waiting, '^(.*)#(%d+)$')
          tell(channels, owner, { kind = 'receipt', token = token, device = device, event = event })
        end
      end
    end
  end
  return fresh
end

redis.register_function { function_name = 'homing_1_record', callback = record, flags = { 'allow-oom' } }

-- homing_1_await: notes who waits for what becomes of a message.
--   KEYS  1 the message's receipt
--   ARGV  1 seconds to keep it  2 "<owner>#<token>"
--   reply number of those who wait
-- A function because two who begin at once must not overwrite each other. Of many the last ones are told.
local AWAITED_BY_MAX = 16

local function await(keys, argv)
  local waiting = { argv[2] }
  for other in string.gmatch(redis.call('HGET', keys[1], 'waiting') or '', '%S+') do
    if #waiting < AWAITED_BY_MAX then waiting[#waiting + 1] = other end
  end
  redis.call('HSET', keys[1], 'waiting', table.concat(waiting, ' '))
  redis.call('EXPIRE', keys[1], argv[1])
  return #waiting
end

redis.register_function('homing_1_await', await)

-- homing_1_ack: acknowledges messages that a session did not deliver itself, and so does not know.
--   KEYS  1 inbox
--   ARGV  1 device  2.. entry ids
--   reply for each id 1 if it was pending, 0 if it was not, or, still pending, what it wants in the receipt that must
--         come before its ack: {key or "", 1 if it is for one device only else 0}
-- A function because whether a message asks for receipts must be known before it is acknowledged, at no further command
-- for those that do not.
local function ack(keys, argv)
  local inbox, device = keys[1], argv[1]
  local outcomes = {}
  for i = 2, #argv do
    local id = argv[i]
    local pending = redis.pcall('XPENDING', inbox, device, id, id, 1)
    if pending.err or #pending == 0 then
      -- Also the error of a key that is no stream; a group that is missing answers 0.
      outcomes[i - 1] = redis.call('XACK', inbox, device, id)
    else
      outcomes[i - 1] = wish_of(inbox, device, id) or redis.call('XACK', inbox, device, id)
    end
  end
  return outcomes
end

redis.register_function { function_name = 'homing_1_ack', callback = ack, flags = { 'allow-oom' } }

-- homing_1_publish_asking: appends a message that asks for receipts, and notes it for retention.
--   KEYS  1 inbox  2 asked  3 once, if it has an idempotency key
--   ARGV  1 seconds to remember the key  2 seconds to remember who asked  3.. field, value, ...
--   reply {entry id, 1 if it was appended now, 0 if the key was seen}
-- A function because a message that is not noted would be dropped without a receipt. Refused when memory is full, as any
-- publish is.
local function publish_asking(keys, argv)
  local arguments = { argv[1] }
  for i = 3, #argv do arguments[i - 1] = argv[i] end
  local outcome
  if keys[3] then
    outcome = publish_once({ keys[1], keys[3] }, arguments)
  else
    arguments[1] = '*'
    outcome = { redis.call('XADD', keys[1], unpack(arguments)), 1 }
  end
  if outcome[2] == 1 then
    redis.call('ZADD', keys[2], (split_id(outcome[1])), outcome[1])
    redis.call('EXPIRE', keys[2], argv[2])
  end
  return outcome
end

redis.register_function('homing_1_publish_asking', publish_asking)
