-- homing_1_set_aside: takes messages from a device's pending list that it can never be given, and says so in its gap.
--   KEYS  1 inbox  2 devices
--   ARGV  1 user  2 device  3 channel prefix  4 owner who asks  5 reason ("retention", "too_big")
--         6 number already gone from the pending list, to be counted as well  7.. entry ids
--   reply gap JSON, or "" when nothing was dropped
-- A function because the count and the gap must agree with what was acknowledged, once, whoever else asks.
local function set_aside(keys, argv)
  local inbox, devices = keys[1], keys[2]
  local user, device, channels, owner, reason = argv[1], argv[2], argv[3], argv[4], argv[5]
  local record = load_device(devices, device)
  if not record then return '' end
  local dropped = tonumber(argv[6])
  for i = 7, #argv do dropped = dropped + redis.call('XACK', inbox, device, argv[i]) end
  if dropped > 0 then
    record.dropped = record.dropped + dropped
    open_gap(record, reason, dropped)
    save_device(devices, device, record)
    if record.owner ~= owner then
      tell(channels, record.owner, { kind = 'gap', user = user, device = device, gap = record.gap })
    end
  end
  return dropped > 0 and cjson.encode(record.gap) or ''
end

redis.register_function { function_name = 'homing_1_set_aside', callback = set_aside, flags = { 'allow-oom' } }

-- homing_1_ack_gap: the client has taken note of a gap.
--   KEYS  1 devices
--   ARGV  1 device  2 gap id
--   reply 1 if that gap was open, 0 if it is not (any more): a newer one stays open
-- A function because a gap that grows between reading and writing the record would be lost.
local function ack_gap(keys, argv)
  local record = load_device(keys[1], argv[1])
  if not record or not record.gap or record.gap.id ~= argv[2] then return 0 end
  record.gap = nil
  save_device(keys[1], argv[1], record)
  return 1
end

redis.register_function { function_name = 'homing_1_ack_gap', callback = ack_gap, flags = { 'allow-oom' } }

-- homing_1_touch: a live session refreshes its device's last_seen_ms, and is the owner again if its node was judged
-- dead while it was paused: without an owner in the record, whoever takes over next would tell nobody.
-- A session that was dismissed refreshes nothing, and its device stays without an owner.
--   KEYS  1 devices
--   ARGV  1 device  2 generation that must still be recorded  3 owner  4 node
--   reply 1, 0, or 2: the device is online again after it was announced as gone, which is to be announced
-- A function because writing back a record that was read earlier would undo an attach.
local function touch(keys, argv)
  local record = load_device(keys[1], argv[1])
  if not record or record.generation ~= argv[2] then return 0 end
  record.last_seen_ms = now_ms()
  if record.dismissed then return 0 end
  local reply = 1
  if record.owner == '' then
    record.owner, record.node, record.struck = argv[3], argv[4], nil
    -- It was announced as gone meanwhile.
    if record.announcer and not record.announced then
      record.announced, record.announcer, reply = record.generation, argv[3], 2
    end
  end
  save_device(keys[1], argv[1], record)
  return reply
end

redis.register_function { function_name = 'homing_1_touch', callback = touch, flags = { 'allow-oom' } }
