-- homing_1_attach: makes a session the owner of its device.
--   KEYS  1 inbox  2 devices
--   ARGV  1 JSON {user, device, channels, owner, node, nonce, instance, seq, from, epoch, primary, mode, generation,
--           devices_max, replace_after_ms, sessions_max, issued_at_s, presence}
--         generation: with "again" that with which the client connected; 0 if it has not been told that it is.
--         sessions_max: devices of the user that may be connected at once, 0 for any number.
--         issued_at_s: of the token, -1 if it does not say. presence: whether somebody announces who is online.
--         mode "connect": a client connected. "again": the primary epoch changed under a live session.
--         "repair": a live session found its group missing; only if the record still has its generation.
--   reply {"ok", generation, created 0|1, incarnation, pending or -1, last delivered id, start id, gap JSON or "",
--           inbox length, now in Unix ms, 1 if it took over from another session else 0, Unix seconds until which
--           tokens are refused or 0, generation with which the device came online or 0, the owner that announced that
--           until now or ""}
--         {"refused"}                 the token is one of those that are refused
--         {"dismissed", generation, kind, reason}   somebody else ended this very session
--         {"stale", generation}       a later connection of the same client object is already attached; again: of the device
--         {"superseded", generation}  repair: another session owns the device
--         {"removed"}                 repair: the device is not known any more
--         {"too_many"}                the user has devices_max devices and none may be replaced
-- Of the user's other devices that are connected, those connected longest ago are dismissed when they are too many, but
-- none that connected later than this one. If such a one left no room for this one, this one is dismissed: both attach
-- again in a new epoch, in any order, and Redis may have lost that it was dismissed.
-- A function because the group's start depends on who else follows the inbox, and because a generation, its owner and
-- the word to the previous owner must not be separated: between two commands another node could attach, or trim.

-- The user's other devices that are connected, in the order in which they connected. One that was judged dead comes
-- first: it may only have been paused, and would be one too many when it wakes up.
local function others_connected(devices, device)
  local others = {}
  for name, other in pairs((all_devices(devices))) do
    if name ~= device and (other.owner ~= '' or other.struck) then
      local connected = other.connected or other.generation
      others[#others + 1] = { name = name, record = other, dead = other.owner == '', connected = connected }
    end
  end
  table.sort(others, function(a, b)
    if a.dead ~= b.dead then return a.dead end
    return digits_less(a.connected, b.connected)
  end)
  return others
end

-- Whether one that connected later allowed no more sessions than there are since.
local function is_outlived(others, connected)
  local later = 0
  for _, other in ipairs(others) do
    if not other.dead and digits_less(connected, other.connected) then
      later = later + 1
      if other.record.limit and later >= other.record.limit then return true end
    end
  end
  return false
end

-- Dismisses other devices until no more are connected than the record of this one, which counts too, allows. Unless its
-- client connects just now, those that connected later neither count nor go.
local function replace_others(devices, request, others, record, connects)
  local earlier = {}
  for _, other in ipairs(others) do
    if connects or other.dead or not digits_less(record.connected, other.connected) then
      earlier[#earlier + 1] = other
    end
  end
  for i = 1, #earlier - record.limit + 1 do
    dismiss(devices, request.channels, request.user, earlier[i].name, earlier[i].record, 'replaced', '')
  end
end

local function attach(keys, argv)
  local inbox, devices = keys[1], keys[2]
  local request = cjson.decode(argv[1])
  local device = request.device
  local stored = redis.call('HMGET', devices, device, REFUSE_BEFORE)
  local record = stored[1] and cjson.decode(stored[1]) or nil
  local known = record ~= nil

  local refuse_before = stored[2] or '0'
  if refuse_before ~= '0' and (request.issued_at_s or -1) <= tonumber(refuse_before) then return { 'refused' } end

  if request.mode == 'repair' then
    if not known then return { 'removed' } end
    if record.generation ~= request.generation then return { 'superseded', record.generation } end
  end
  local repeated = known and record.nonce == request.nonce
  if repeated and record.dismissed then
    return { 'dismissed', record.generation, record.dismissed.kind, record.dismissed.reason }
  end
  -- As digits: cjson would write a number of more than 14 digits rounded, and lock its client out.
  local seq = whole(request.seq)
  if known and not repeated and record.instance == request.instance and digits_less(seq, record.seq) then
    return { 'stale', record.generation }
  end
  -- With which generation its client connected; the client of another one may have connected since.
  local connected = request.mode == 'again' and request.generation ~= '0' and request.generation
  if known and not repeated and connected and record.connected and digits_less(connected, record.connected) then
    return { 'stale', record.generation }
  end

  local now = now_us()
  if not known then
    local others, count = all_devices(devices)
    if count >= request.devices_max then
      local victim = nil
      for name, other in pairs(others) do
        local offline_ms = now / 1000 - other.last_seen_ms
        if other.owner == '' and offline_ms > request.replace_after_ms
          and (not victim or other.last_seen_ms < others[victim].last_seen_ms) then
          victim = name
        end
      end
      if not victim then return { 'too_many' } end
      remove_device(inbox, devices, request.channels, request.user, victim, others[victim])
    end
    record = { first_seen_ms = math.floor(now / 1000), dropped = 0, generation = '0', owner = '' }
  end

  -- Whether the user has another device must be asked after a replacement, which may have removed the last one.
  local start = '0'
  if not known and request.epoch == '' and request.from ~= 'start' then
    local _, others = all_devices(devices)
    if others > 0 or request.from == 'end' then start = '$' end
  end
  -- In topics the device begins where it begins in the inbox: with all that its user follows, or now.
  if not known then record.topics_from_ms = start == '0' and 0 or record.first_seen_ms end
  local created = redis.pcall('XGROUP', 'CREATE', inbox, device, start, 'MKSTREAM')
  local made = type(created) ~= 'table' or not created.err
  if not made and not string.find(created.err, 'BUSYGROUP', 1, true) then return created end

  -- entries-read stays unknown to Redis when the group starts at 0 on a trimmed stream: lag is then nil, not wrong.
  if made and known then
    raise_incarnation(devices)
    open_gap(record, 'epoch', 0)
  elseif not known then
    if incarnation_of(devices) == '0' then raise_incarnation(devices) end
    if request.epoch ~= '' then
      local same = string.sub(request.epoch, 1, #request.primary + 1) == request.primary .. '.'
      open_gap(record, same and 'device_expired' or 'epoch', 0)
    end
  elseif record.epoch ~= request.primary then
    open_gap(record, 'epoch', 0)
  end

  local previous_owner = record.owner
  if not repeated and request.mode ~= 'repair' then
    record.generation = whole(math.max(tonumber(record.generation) + 1, now))
    record.since_ms = math.floor(now / 1000)
    record.connected = connected or record.generation
    -- What was allowed when the client connected: another token since then dismisses nobody.
    record.limit = (request.sessions_max or 0) > 0 and request.sessions_max or nil
  end
  record.connected = record.connected or record.generation
  local group = groups_of(inbox)[device]
  if made or not record.start then record.start = group.last end
  record.owner = request.owner
  record.node = request.node
  record.nonce = request.nonce
  record.instance = request.instance
  record.seq = seq
  record.epoch = request.primary
  record.last_seen_ms = math.floor(now / 1000)
  record.dismissed, record.struck = nil, nil
  local others = {}
  if record.limit or request.mode == 'again' then others = others_connected(devices, device) end
  local announcer = ''
  if request.mode == 'again' and is_outlived(others, record.connected) then
    record.owner, record.dismissed = '', { kind = 'replaced', reason = '' }
    -- Who announced it as online has it in its index, and looks whose it is.
    if request.presence then record.announcer = record.announcer or request.owner end
  elseif request.presence then
    if record.announced then announcer = record.announcer else record.announced = record.generation end
    record.announcer = request.owner
  end
  save_device(devices, device, record)

  if previous_owner ~= request.owner then
    tell(request.channels, previous_owner,
      { kind = 'superseded', user = request.user, device = device, generation = record.generation })
  end
  if record.dismissed then
    return { 'dismissed', record.generation, record.dismissed.kind, record.dismissed.reason }
  end
  if record.limit then
    replace_others(devices, request, others, record, request.mode == 'connect' and not repeated)
  end
  local pending = -1
  if group.lag then pending = group.pending + group.lag end
  return { 'ok', record.generation, known and 0 or 1, incarnation_of(devices), pending, group.last, record.start,
    record.gap and cjson.encode(record.gap) or '', redis.call('XLEN', inbox), math.floor(now / 1000),
    previous_owner ~= '' and not repeated and 1 or 0, refuse_before, request.presence and record.announced or '0',
    announcer }
end

redis.register_function { function_name = 'homing_1_attach', callback = attach, flags = { 'allow-oom' } }
