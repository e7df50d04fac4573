-- homing_1_follow: makes a user follow topics, or follow them no more. Follows belong to the user: all devices have them.
-- homing_1_unfollow: the same for a request that follows nothing, which is also taken when Redis's memory is full.
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
redis.register_function { function_name = 'homing_1_unfollow', callback = follow, flags = { 'allow-oom' } }

-- homing_1_write_cursors: ZADD … GT when Redis's memory is full: an ack is taken, and what is acknowledged can go.
--   KEYS  1 cursors
--   ARGV  for each: score, <user>/<device>
--   reply how many are new
local function write_cursors(keys, argv)
  return redis.call('ZADD', keys[1], 'GT', unpack(argv))
end

redis.register_function {
  function_name = 'homing_1_write_cursors', callback = write_cursors, flags = { 'allow-oom' }
}

-- homing_1_forget_cursors: forgets where devices stand in a topic that their user follows no more, or that are gone.
--   KEYS  1 cursors
--   ARGV  1 when that was, or how far they had come, Unix ms  2.. <user>/<device>
--   reply how many were forgotten
-- A function because the caller may be late, and the user may follow the topic again by now, or a device of that name be
-- back: a cursor that was written since says what was acked since, and must stay.
local function forget_cursors(keys, argv)
  local before, forgotten = tonumber(argv[1]) * 1024, 0
  for i = 2, #argv do
    local score = redis.call('ZSCORE', keys[1], argv[i])
    if score and tonumber(score) < before then forgotten = forgotten + redis.call('ZREM', keys[1], argv[i]) end
  end
  return forgotten
end

redis.register_function {
  function_name = 'homing_1_forget_cursors', callback = forget_cursors, flags = { 'allow-oom' }
}

-- homing_1_rewind_cursors: takes cursors back that lie beyond the end of a log, as those of an older epoch may.
--   KEYS  1 cursors
--   ARGV  for each: <user>/<device>, the score from where, the score where to
--   reply how many were taken back
-- A function because the caller may be late, and another connection of the device may have done it, and gone on since:
-- what is not where it was found is written as ever, thus never taken back.
local function rewind_cursors(keys, argv)
  local taken = 0
  for i = 1, #argv, 3 do
    local score = redis.call('ZSCORE', keys[1], argv[i])
    if score and tonumber(score) == tonumber(argv[i + 1]) then
      redis.call('ZADD', keys[1], argv[i + 2], argv[i])
      taken = taken + 1
    else
      redis.call('ZADD', keys[1], 'GT', argv[i + 2], argv[i])
    end
  end
  return taken
end

redis.register_function {
  function_name = 'homing_1_rewind_cursors', callback = rewind_cursors, flags = { 'allow-oom' }
}

-- homing_1_tend_topic: the janitor's visit to one topic: retention by age and length, cursors that say nothing more.
--   KEYS  1 log  2 meta  3 cursors  4 followers
--   ARGV  1 longest log  2 oldest age, ms  3 most entries removed at once  4 most cursors removed at once
--         5 how long it must be known what was removed when nothing else is left of the topic, ms
--   reply {log length, entries removed, 1 if there is more to remove: call again, cursors removed}
-- A function because a follower must learn that something was removed before it reads on behind it: `trimmed` and the
-- trim must not be separated. The keys are looked at first: if one holds something else, nothing is removed.
local function tend_topic(keys, argv)
  local log, meta, cursors, followers = keys[1], keys[2], keys[3], keys[4]
  -- Arithmetic, because what is no number must be refused before anything is removed.
  local length_max, page, cursors_page = argv[1] + 0, argv[3] + 0, argv[4] + 0
  local known_ms = whole(tonumber(argv[5]))
  local oldest = whole(math.max(1, now_ms() - tonumber(argv[2]))) .. '-0'
  local length = redis.call('XLEN', log)
  local trimmed = redis.call('HGET', meta, 'trimmed')
  local following, standing = redis.call('SCARD', followers), redis.call('ZCARD', cursors)
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
    if not trimmed or id_less(trimmed, last) then
      trimmed = last
      redis.call('HSET', meta, 'trimmed', last)
    end
    removed = redis.call('XTRIM', log, 'MINID', '=', next_id(last))
  end
  -- A cursor before what was trimmed says no more than none: its device missed something either way. Those of devices
  -- that are gone go like this too.
  if trimmed then
    -- In parentheses: the sequence would be taken for the number's base.
    local ms = tonumber((split_id(trimmed)))
    local behind = redis.call('ZCOUNT', cursors, '-inf', '(' .. whole(ms * 1024))
    if behind > cursors_page then behind, more = cursors_page, 1 end
    -- Those with the lowest scores.
    if behind > 0 then forgotten = redis.call('ZREMRANGEBYRANK', cursors, 0, behind - 1) end
  end
  length = redis.call('XLEN', log)
  if length == 0 and following == 0 and standing == forgotten then
    redis.call('DEL', log)
    -- Devices that never acknowledged anything here, or whose user is missing in the list, are told by this.
    redis.call('PEXPIRE', meta, known_ms)
  else
    redis.call('PERSIST', meta)
  end
  return { length, removed, more, forgotten }
end

redis.register_function { function_name = 'homing_1_tend_topic', callback = tend_topic, flags = { 'allow-oom' } }
