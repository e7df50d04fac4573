-- homing_1_follow: makes a user follow topics, or follow them no more. Follows belong to the user: all devices have them.
--   KEYS  1 topics  2 devices
--   ARGV  1 JSON {user, channels, owner (who asks and need not be told, or ""), limit, replace}
--         2 number of topics to follow  3.. these  then the topics to unfollow
--         replace true: what is not among those to follow is unfollowed, whatever it is
--   reply {"ok", {topics followed now that were not}, {topics not followed any more}, {devices}, now in Unix ms}
--         {"too_many", limit}: nothing was changed
-- A function because the limit counts what is followed at this moment, and because the owners who must look again are
-- those recorded at this moment: one that attaches later reads what is followed after it.
local function follow(keys, argv)
  local topics, devices = keys[1], keys[2]
  local request = cjson.decode(argv[1])
  local count = tonumber(argv[2])
  local wanted, added, removed = {}, {}, {}
  for i = 3, 2 + count do
    wanted[argv[i]] = true
    if redis.call('HEXISTS', topics, argv[i]) == 0 then added[#added + 1] = argv[i] end
  end
  if request.replace then
    for _, topic in ipairs(redis.call('HKEYS', topics)) do
      if not wanted[topic] then removed[#removed + 1] = topic end
    end
  else
    for i = 3 + count, #argv do
      if redis.call('HEXISTS', topics, argv[i]) == 1 then removed[#removed + 1] = argv[i] end
    end
  end
  if #added > 0 and redis.call('HLEN', topics) + #added - #removed > request.limit then
    return { 'too_many', request.limit }
  end
  local now = whole(now_ms())
  for _, topic in ipairs(removed) do redis.call('HDEL', topics, topic) end
  for _, topic in ipairs(added) do redis.call('HSET', topics, topic, now) end
  local records = all_devices(devices)
  local names, told = {}, {}
  for device, record in pairs(records) do
    names[#names + 1] = device
    -- Who was judged dead may only have been paused, and would hear of it with its sweep.
    local owner = record.owner ~= '' and record.owner or record.struck
    if #added + #removed > 0 and owner and owner ~= request.owner and not told[owner] then
      told[owner] = true
      tell(request.channels, owner, { kind = 'topics', user = request.user })
    end
  end
  return { 'ok', added, removed, names, now }
end

redis.register_function('homing_1_follow', follow)

-- homing_1_leave: removes the cursors of a user's devices in a topic that the user has left.
--   KEYS  1 cursors
--   ARGV  1 when it was left, Unix ms by Redis's clock  2.. members
--   reply number of cursors removed
-- A function because it may come late, when the user follows again: a cursor that was written since then must stay, or
-- what was acknowledged would be delivered again. One of the time before that stays by chance says nothing any more.
local function leave(keys, argv)
  local limit, removed = argv[1] * 1024, 0
  for i = 2, #argv do
    local score = redis.call('ZSCORE', keys[1], argv[i])
    if score and tonumber(score) < limit then removed = removed + redis.call('ZREM', keys[1], argv[i]) end
  end
  return removed
end

redis.register_function { function_name = 'homing_1_leave', callback = leave, flags = { 'allow-oom' } }

-- homing_1_tend_topic: the janitor's visit to one topic: retention by age and length, cursors that say nothing more.
--   KEYS  1 log  2 meta  3 cursors  4 followers
--   ARGV  1 longest log  2 oldest age, ms  3 most entries removed at once
--   reply {log length, entries removed, 1 if there is more to remove: call again, cursors removed}
-- A function because a follower must learn that something was removed before it reads on behind it: `trimmed` and the
-- trim must not be separated.
local function tend_topic(keys, argv)
  local log, meta, cursors, followers = keys[1], keys[2], keys[3], keys[4]
  local length_max, page = tonumber(argv[1]), tonumber(argv[3])
  local oldest = whole(math.max(1, now_ms() - tonumber(argv[2]))) .. '-0'
  local length = redis.call('XLEN', log)
  local last, more = nil, 0
  if length > length_max then
    local excess = length - length_max
    if excess > page then excess, more = page, 1 end
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', excess)
    last = first[#first][1]
  end
  if more == 0 then
    local old = redis.call('XRANGE', log, '-', '(' .. oldest, 'COUNT', page)
    if #old == page then more = 1 end
    if #old > 0 and (not last or id_less(last, old[#old][1])) then last = old[#old][1] end
  end
  local removed, forgotten = 0, 0
  if last then
    removed = redis.call('XTRIM', log, 'MINID', '=', next_id(last))
    local before = redis.call('HGET', meta, 'trimmed')
    if not before or id_less(before, last) then redis.call('HSET', meta, 'trimmed', last) end
  end
  -- A cursor before what was trimmed says no more than none: its device missed something either way. Those of devices
  -- that are gone go like this too.
  local trimmed = redis.call('HGET', meta, 'trimmed')
  if trimmed then
    local ms = tonumber(split_id(trimmed))
    forgotten = redis.call('ZREMRANGEBYSCORE', cursors, '-inf', '(' .. whole(ms * 1024))
  end
  if redis.call('XLEN', log) == 0 and redis.call('SCARD', followers) == 0 and redis.call('ZCARD', cursors) == 0 then
    redis.call('DEL', log, meta)
  end
  return { redis.call('XLEN', log), removed, more, forgotten }
end

redis.register_function { function_name = 'homing_1_tend_topic', callback = tend_topic, flags = { 'allow-oom' } }
