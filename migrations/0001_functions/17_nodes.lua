-- homing_1_heartbeat: a node says that it lives, and hears who else does.
--   KEYS  1 nodes
--   ARGV  1 "<node>:<random per start>"  2 JSON about the node: {node, shards, version}  3 ms after which the
--         dead are forgotten
--   reply {now in Unix ms, ms since this node's previous heartbeat or -1, then per node: name, ms since its heartbeat,
--           its JSON}
-- A function because every stamp must come from one clock, Redis's own.
local function seen_ms(text)
  local readable, about = pcall(cjson.decode, text)
  return readable and type(about) == 'table' and tonumber(about.seen_ms) or nil
end

local function heartbeat(keys, argv)
  local nodes, me = keys[1], argv[1]
  local now = now_ms()
  local before = redis.call('HGET', nodes, me)
  local previous = before and seen_ms(before)
  local about = cjson.decode(argv[2])
  about.seen_ms = now
  redis.call('HSET', nodes, me, cjson.encode(about))
  local reply = { now, previous and now - previous or -1 }
  local flat = redis.call('HGETALL', nodes)
  for i = 1, #flat, 2 do
    local seen = seen_ms(flat[i + 1])
    -- What is no heartbeat goes like one that is too old: one bad field must not silence every node.
    if not seen or now - seen > tonumber(argv[3]) then
      redis.call('HDEL', nodes, flat[i])
    else
      reply[#reply + 1] = flat[i]
      reply[#reply + 1] = now - seen
      reply[#reply + 1] = flat[i + 1]
    end
  end
  return reply
end

redis.register_function { function_name = 'homing_1_heartbeat', callback = heartbeat, flags = { 'allow-oom' } }

-- homing_1_recover: compares the server that a node is connected to with the one that the primary epoch belongs to.
--   KEYS  1 epoch
--   ARGV  1 run_id  2 master_replid  3 "1" if a restart loses nothing (append-only log, fsync always)
--         4 master_replid2: of the primary whose replica this server was, or zeros
--   reply {primary epoch, "same" | "kept" (restart without loss) | "changed" | "created"}
-- A function because it is a compare-and-set: of several nodes that reconnect, one changes the epoch, once.
local function recover(keys, argv)
  local key = keys[1]
  local before = pairs_to_table(redis.call('HGETALL', key))
  if before.run_id == argv[1] and before.replid == argv[2] then return { before.epoch, 'same' } end
  local outcome, epoch = 'created', nil
  -- A replica that took over from the recorded server may lack its last writes, however durable each of both is.
  if before.epoch and argv[3] == '1' and before.replid ~= argv[4] then
    outcome, epoch = 'kept', before.epoch
  else
    if before.epoch then outcome = 'changed' end
    epoch = whole(math.max(tonumber(before.epoch or '0') + 1, math.floor(now_us() / 1000000)))
  end
  redis.call('HSET', key, 'epoch', epoch, 'run_id', argv[1], 'replid', argv[2])
  return { epoch, outcome }
end

redis.register_function { function_name = 'homing_1_recover', callback = recover, flags = { 'allow-oom' } }
