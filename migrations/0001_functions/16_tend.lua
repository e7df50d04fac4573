-- homing_1_tend: the janitor's visit to one user: retention, idle devices, an inbox that nobody needs.
--   KEYS  1 inbox  2 devices  3 asked, may be missing
--   ARGV  1 user
--         2 JSON {channels, length_max, age_max_ms, device_idle_ms, alive: {"<node>:<random>": true} or null, page,
--           presence}
--         alive null: node deaths may not be judged now.
--   reply {inbox length, pending over all devices, oldest unacknowledged entry id or "", entries removed,
--           drops over all devices, devices expired, 1 if page was used up: call again, now in Unix ms, with presence:
--           {devices whose owner is dead: device, owner, ...},
--           {{device, entry id, key or "", 1 if for that device only else 0}, ...}: drops that asked for a receipt}
-- A function because each drop is counted for each device that had not acknowledged it, exactly once, and because a
-- device expires only if it is still offline. Nearly all visits find nothing to do, and learn it from few commands.

-- What a look at the inbox tells: its length, its first entry's id, its groups, each with its first pending entry, and
-- how many are pending over all groups.
local function survey(inbox)
  local found = { length = redis.call('XLEN', inbox), groups = groups_of(inbox), pending = 0 }
  if found.length > 0 then found.first = redis.call('XRANGE', inbox, '-', '+', 'COUNT', 1)[1][1] end
  for name, group in pairs(found.groups) do
    if group.pending > 0 then
      group.first = redis.call('XPENDING', inbox, name)[2]
      found.pending = found.pending + group.pending
    end
  end
  return found
end

-- Acknowledges, for one group, pending entries before `cutoff`; returns how many.
local function drop_pending(inbox, device, cutoff)
  local dropped = 0
  while true do
    local page = redis.call('XPENDING', inbox, device, '-', '(' .. cutoff, 1000)
    if #page == 0 then return dropped end
    local ids = {}
    for i, entry in ipairs(page) do ids[i] = entry[1] end
    dropped = dropped + redis.call('XACK', inbox, device, unpack(ids))
  end
end

-- Which messages asked for receipts is a sorted set of their ids by their ms. What has left the inbox leaves it, too.
local function prune_asked(asked, first)
  if not asked or redis.call('EXISTS', asked) == 0 then return end
  if not first then
    redis.call('DEL', asked)
  else
    redis.call('ZREMRANGEBYSCORE', asked, '-inf', '(' .. (split_id(first)))
  end
end

-- `cutoff`, or an earlier one before which no more than about a page of messages asked for receipts; and 1 if it is one.
local function within_page(asked, cutoff, page)
  if not asked then return cutoff, 0 end
  local ids = redis.call('ZRANGEBYSCORE', asked, '-inf', (split_id(cutoff)), 'LIMIT', 0, page)
  if #ids < page then return cutoff, 0 end
  -- The set does not know the order within a millisecond, so it is not divided.
  local first, last = (split_id(ids[1])), (split_id(ids[#ids]))
  local earlier = (first == last and increment(last) or last) .. '-0'
  if id_less(earlier, cutoff) then return earlier, 1 end
  return cutoff, 0
end

-- Notes for each device the messages before `cutoff` that asked for receipts and that it has not acknowledged.
local function note_receipts(inbox, asked, groups, cutoff, receipts)
  if not asked then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', asked, '-inf', (split_id(cutoff)))) do
    if id_less(id, cutoff) then
      for device, group in pairs(groups) do
        local lost = id_less(group.last, id)
        if not lost and group.pending > 0 then lost = #redis.call('XPENDING', inbox, device, id, id, 1) > 0 end
        local wish = lost and wish_of(inbox, device, id)
        if wish then receipts[#receipts + 1] = { device, id, wish[1], wish[2] } end
      end
    end
  end
end

-- Removes every entry before `cutoff`. Cut by cut at each group's position, so that the numbers that XTRIM answers say
-- how many of the entries each group had not been given yet. Returns entries removed; adds to `drops`.
local function cut(inbox, groups, cutoff, drops)
  local marks = {}
  for _, group in pairs(groups) do
    local after = next_id(group.last)
    if id_less(after, cutoff) then marks[#marks + 1] = after end
  end
  table.sort(marks, id_less)
  marks[#marks + 1] = cutoff
  local removed = 0
  for _, mark in ipairs(marks) do
    local count = redis.call('XTRIM', inbox, 'MINID', '=', mark)
    removed = removed + count
    if count > 0 then
      for name, group in pairs(groups) do
        if id_less(next_id(group.last), mark) then drops[name] = drops[name] + count end
      end
    end
  end
  for name, group in pairs(groups) do
    if group.pending > 0 then drops[name] = drops[name] + drop_pending(inbox, name, cutoff) end
  end
  return removed
end

-- Whether there is an entry too many, or one before `cutoff`, be it one that is gone and still pending.
local function is_overdue(found, request, cutoff)
  if found.length > request.length_max then return true end
  if found.first and id_less(found.first, cutoff) then return true end
  for _, group in pairs(found.groups) do
    if group.first and id_less(group.first, cutoff) then return true end
  end
  return false
end

local function retain(inbox, asked, request, groups, cutoff, drops, receipts)
  for name in pairs(groups) do drops[name] = 0 end
  local more
  cutoff, more = within_page(asked, cutoff, request.page)
  note_receipts(inbox, asked, groups, cutoff, receipts)
  local removed = cut(inbox, groups, cutoff, drops)
  if more == 1 then return removed, more end
  local excess = redis.call('XLEN', inbox) - request.length_max
  if excess > request.page then excess, more = request.page, 1 end
  if excess > 0 then
    local first = redis.call('XRANGE', inbox, '-', '+', 'COUNT', excess)
    groups, cutoff = groups_of(inbox), next_id(first[#first][1])
    note_receipts(inbox, asked, groups, cutoff, receipts)
    removed = removed + cut(inbox, groups, cutoff, drops)
  end
  return removed, more
end

-- Returns how many devices expired, and those whose owner is dead with that owner: who announces presence has the
-- index of that owner's devices, and strikes it; without presence they are struck here.
local function expire_devices(inbox, devices, user, records, request, now)
  local expired, lost = 0, {}
  for device, record in pairs(records) do
    if record.owner ~= '' and type(request.alive) == 'table' and not request.alive[string.gsub(record.owner, '%.%d+$', '')] then
      if request.presence then
        lost[#lost + 1] = device
        lost[#lost + 1] = record.owner
      else
        record.struck, record.owner = record.owner, ''
        save_device(devices, device, record)
      end
    end
    if record.owner == '' and now / 1000 - record.last_seen_ms > request.device_idle_ms then
      remove_device(inbox, devices, request.channels, user, device, record)
      expired = expired + 1
    end
  end
  return expired, lost
end

-- Writes what was dropped into the devices' records and tells their owners.
local function report_drops(devices, user, records, request, drops)
  local total = 0
  for device, count in pairs(drops) do
    local record = count > 0 and records[device]
    if record then
      total = total + count
      record.dropped = record.dropped + count
      open_gap(record, 'retention', count)
      save_device(devices, device, record)
      tell(request.channels, record.owner, { kind = 'gap', user = user, device = device, gap = record.gap })
    end
  end
  return total
end

-- Deletes the hash of a user of whom nothing is known: no device, and no tokens that are still refused.
local function forget_empty(devices)
  local fields = redis.call('HKEYS', devices)
  for _, field in ipairs(fields) do
    if field ~= INCARNATION then return end
  end
  redis.call('DEL', devices)
end

-- Tokens are expected to live shorter than 30 days: a refusal that is older concerns none any more.
local REFUSAL_KEPT_S = 30 * 24 * 60 * 60

-- The last request, never to be written to, and its text: it is mostly the same for all users of a pass, and decoding it
-- would be a tenth of a visit.
local last_text, last_request

local function decode(text)
  if text ~= last_text then last_text, last_request = text, cjson.decode(text) end
  return last_request
end

-- The oldest entry that a device has not acknowledged, or has not been given; "" if there is none.
local function oldest_of(found)
  local oldest
  for _, group in pairs(found.groups) do
    local waiting = found.first and id_less(group.last, found.first) and found.first or nil
    for _, first in pairs({ group.first, waiting }) do
      if not (oldest and id_less(oldest, first)) then oldest = first end
    end
  end
  return oldest or ''
end

local function tend(keys, argv)
  local inbox, devices, asked = keys[1], keys[2], keys[3]
  local user, request = argv[1], decode(argv[2])
  local now = now_us()
  local drops, removed, more, receipts = {}, 0, 0, {}
  -- First, so that of somebody whose records cannot be read nothing is dropped that nobody would be told of.
  local records, _, refuse_before = all_devices(devices)
  local found = survey(inbox)
  prune_asked(asked, found.first)
  -- At least 1: before the entry 0-0 there is no interval that XPENDING would take.
  local cutoff = whole(math.max(1, math.floor(now / 1000) - request.age_max_ms)) .. '-0'
  if is_overdue(found, request, cutoff) then
    removed, more = retain(inbox, asked, request, found.groups, cutoff, drops, receipts)
    found = nil
  end
  local dropped = report_drops(devices, user, records, request, drops)
  if refuse_before and now / 1000000 - tonumber(refuse_before) > REFUSAL_KEPT_S then
    redis.call('HDEL', devices, REFUSE_BEFORE)
  end
  local expired, lost = expire_devices(inbox, devices, user, records, request, now)
  if expired > 0 then found = nil end
  if more == 0 and not (found and found.length == 0) then
    local trimmed = trim_acknowledged(inbox, devices, found and found.groups)
    removed = removed + trimmed
    if trimmed > 0 then found = nil end
  end

  found = found or survey(inbox)
  if found.length == 0 and next(found.groups) == nil then
    redis.call('DEL', inbox)
    forget_empty(devices)
  end
  return {
    found.length, found.pending, oldest_of(found), removed, dropped, expired, more, math.floor(now / 1000), lost, receipts,
  }
end

redis.register_function { function_name = 'homing_1_tend', callback = tend, flags = { 'allow-oom' } }
