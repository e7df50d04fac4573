#!lua name=homing_1
-- Homing's Redis functions, version 1. The files of this folder are joined in the order of their names and loaded as
-- one library. A released version is never changed: a new behaviour is a new folder with a new number.
--
-- A device's record, field <device> of <prefix>:{U}:devices, is JSON:
--   generation      text, µs    grows with every attach; text because Lua and cjson would round it
--   owner           text        "<node>:<random per start>.<shard>" that holds the session; "" when offline
--   node            text        the node's name, for people
--   nonce           text        the attach that made this generation: a repeated attach changes nothing
--   instance, seq   text        the client object and its connection number, at most 2^53
--   first_seen_ms, last_seen_ms   Unix ms by Redis's clock
--   topics_from_ms  Unix ms     where the device begins in a topic that it has no cursor in
--   start           text        the entry id that the device's group began after
--   epoch           text        primary epoch at the last attach
--   dropped         number      messages that were dropped before this device acked them, ever
--   gap             object      {id, reason, count}, until the client acks its id
--   since_ms        number      when this generation attached, Unix ms
--   connected       text        the generation with which its client connected: who connected later
--   limit           number      the sessions of its user that were allowed then, if they were limited
--   dismissed       object      {kind, reason}: somebody else ended the session of this generation. Until the next
--                               attach: the session must neither claim its device back nor attach again by itself
--   struck          text        the owner that was judged dead; it is the owner again when it wakes up, unless it was
--                               dismissed meanwhile
--   announced       text        generation with which the device came online, as long as presence counts it as online
--   announcer       text        the owner that announces it, and keeps it in its index of online devices
-- Fields that begin with '#', which cannot stand in a device's name:
--   "#incarnation"    the inbox incarnation
--   "#refuse_before"  Unix seconds: tokens that were issued until then are refused

local INCARNATION = '#incarnation'
local REFUSE_BEFORE = '#refuse_before'

-- Redis's clock: Unix microseconds, exact in a Lua number until the year 2255.
local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function is_device(field)
  return string.byte(field) ~= 35
end

local function load_device(devices, device)
  local text = redis.call('HGET', devices, device)
  if not text then return nil end
  return cjson.decode(text)
end

local function save_device(devices, device, record)
  redis.call('HSET', devices, device, cjson.encode(record))
end

-- Every device of the user: a table of name -> record, and their number; and since when tokens are refused, or nil.
local function all_devices(devices)
  local flat = redis.call('HGETALL', devices)
  local records, count, refuse_before = {}, 0, nil
  for i = 1, #flat, 2 do
    if is_device(flat[i]) then
      records[flat[i]] = cjson.decode(flat[i + 1])
      count = count + 1
    elseif flat[i] == REFUSE_BEFORE then
      refuse_before = flat[i + 1]
    end
  end
  return records, count, refuse_before
end

local function incarnation_of(devices)
  return redis.call('HGET', devices, INCARNATION) or '0'
end

-- Never repeats, also when the hash was deleted in between: at least the clock's seconds.
local function raise_incarnation(devices)
  local previous = tonumber(incarnation_of(devices))
  local incarnation = whole(math.max(previous + 1, math.floor(now_us() / 1000000)))
  redis.call('HSET', devices, INCARNATION, incarnation)
  return incarnation
end

-- Compares two decimal numbers without sign or leading zeros as text: Lua's numbers lose precision beyond 2^53.
local function digits_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function split_id(id)
  return string.match(id, '^(%d+)-(%d+)$')
end

local function id_less(a, b)
  local a_ms, a_seq = split_id(a)
  local b_ms, b_seq = split_id(b)
  if a_ms ~= b_ms then return digits_less(a_ms, b_ms) end
  return digits_less(a_seq, b_seq)
end

local function increment(digits)
  local last = string.byte(digits, -1)
  if last < 57 then return string.sub(digits, 1, -2) .. string.char(last + 1) end
  local result, carry = '', 1
  for i = #digits, 1, -1 do
    local digit = string.byte(digits, i) - 48 + carry
    carry = digit == 10 and 1 or 0
    result = (digit == 10 and '0' or tostring(digit)) .. result
  end
  return carry == 1 and '1' .. result or result
end

-- The smallest id after this one.
local function next_id(id)
  local ms, seq = split_id(id)
  if seq == '18446744073709551615' then return increment(ms) .. '-0' end
  return ms .. '-' .. increment(seq)
end

local function pairs_to_table(flat)
  local result = {}
  for i = 1, #flat, 2 do result[flat[i]] = flat[i + 1] end
  return result
end

-- The inbox's groups as name -> {pending, last (last delivered id), lag (or nil)}; empty when there is no inbox.
local function groups_of(inbox)
  local infos = redis.pcall('XINFO', 'GROUPS', inbox)
  if infos.err then
    if redis.call('EXISTS', inbox) == 0 then return {} end
    error(infos)
  end
  local groups = {}
  for _, info in ipairs(infos) do
    -- Not by a table of all fields: inboxes are trimmed often, and that would be a tenth of what a trim costs.
    local name, pending, last, lag
    for i = 1, #info, 2 do
      local field, value = info[i], info[i + 1]
      if field == 'name' then name = value
      elseif field == 'pending' then pending = value
      elseif field == 'last-delivered-id' then last = value
      elseif field == 'lag' then lag = value or nil end
    end
    groups[name] = { pending = pending, last = last, lag = lag }
  end
  return groups
end

local function tell(channels, owner, message)
  if owner and owner ~= '' then redis.call('PUBLISH', channels .. owner, cjson.encode(message)) end
end

-- Ends a device's session: the record says why, however late the session looks, and its owner is told.
local function dismiss(devices, channels, user, device, record, kind, reason)
  local owner = record.owner ~= '' and record.owner or record.struck
  record.owner, record.struck = '', nil
  record.last_seen_ms = now_ms()
  record.dismissed = { kind = kind, reason = reason }
  save_device(devices, device, record)
  tell(channels, owner,
    { kind = kind, user = user, device = device, generation = record.generation, reason = reason })
end

local function open_gap(record, reason, count)
  local before = 0
  if record.gap then before = record.gap.count end
  record.gap = { id = 'gap-' .. whole(now_us()), reason = reason, count = before + count }
end

-- What a pending message wants in its receipts: {key or "", 1 if it is for one device only else 0}; nil if it asks for
-- none, or is for another device. As `Entry::envelope` in protocol/src/message.rs has it.
local function wish_of(inbox, device, id)
  local entry = redis.call('XRANGE', inbox, id, id)[1]
  if not entry then return nil end
  local fields = pairs_to_table(entry[2])
  local receipt = fields['receipt']
  if not fields['data'] or not receipt or receipt == '' or receipt == '0' then return nil end
  if fields['device'] and fields['device'] ~= device then return nil end
  return { fields['key'] or '', fields['device'] and 1 or 0 }
end

-- Trims what every device has acknowledged. With no group, or with a known device that lacks its group (it will be
-- repaired at 0), nothing may go. Returns how many entries went. `groups`: if they are known already.
local function trim_acknowledged(inbox, devices, groups)
  groups = groups or groups_of(inbox)
  if next(groups) == nil then return 0 end
  for _, device in ipairs(redis.call('HKEYS', devices)) do
    if is_device(device) and not groups[device] then return 0 end
  end
  local keep = nil
  for name, group in pairs(groups) do
    local first = nil
    if group.pending > 0 then
      first = group.first or redis.call('XPENDING', inbox, name)[2]
    else
      first = next_id(group.last)
    end
    if not keep or id_less(first, keep) then keep = first end
  end
  -- No id comes after the very last one.
  if keep == '18446744073709551616-0' then return redis.call('XTRIM', inbox, 'MAXLEN', '=', 0) end
  return redis.call('XTRIM', inbox, 'MINID', '=', keep)
end

-- Forgets a device: trims while its group still counts, then destroys the group. Its owner closes the session.
local function remove_device(inbox, devices, channels, user, device, record)
  trim_acknowledged(inbox, devices)
  if redis.call('EXISTS', inbox) == 1 then redis.call('XGROUP', 'DESTROY', inbox, device) end
  redis.call('HDEL', devices, device)
  raise_incarnation(devices)
  if record then
    tell(channels, record.owner, { kind = 'removed', user = user, device = device, generation = record.generation })
  end
end
