-- homing_1_look: whether a device that somebody announced as online is gone, so that its absence is to be announced.
--   KEYS  1 devices
--   ARGV  1 device  2 announcer who asks  3 generation with which the device came online, or "" if that is not known
--         4 ms without an owner after which a device is gone  5 ms for which nothing was heard of the announcer, which
--         was judged dead for that; 0 if it was not
--   reply {"gone", generation, node, now in Unix ms}  announce it, then forget it
--         {"moved"}      another announcer looks after it: forget it
--         {"here"}       it is online with this announcer
--         {"wait", ms}   ask again after that time
-- A function because it decides for good: the attach that follows begins a new presence. An answer that was lost is
-- given again. A dead announcer is struck from the record; its devices have had no owner since it fell silent. When it
-- wakes up it is the owner again, as the function `touch` says.
local function look(keys, argv)
  local devices, device, announcer, period = keys[1], argv[1], argv[2], argv[3]
  local grace_ms, silent_ms = tonumber(argv[4]), tonumber(argv[5])
  local now = now_ms()
  local record = load_device(devices, device)
  if not record then return { 'gone', period ~= '' and period or '0', '', now } end
  if record.announced and period ~= '' and record.announced ~= period then
    -- It went and came back: whoever saw it come announced it, and nobody that it had gone.
    return { 'gone', period, record.node, now }
  end
  -- Also if it announced nothing: presence may have been off when the device attached.
  if silent_ms > 0 and record.owner == announcer then
    record.struck, record.owner, record.last_seen_ms = record.owner, '', now - silent_ms
    save_device(devices, device, record)
  end
  if record.announcer ~= announcer then return { 'moved' } end
  if record.owner ~= '' then return { 'here' } end
  local left_ms = record.last_seen_ms + grace_ms - now
  if left_ms > 0 then return { 'wait', left_ms } end
  if record.announced then
    record.announced = nil
    save_device(devices, device, record)
  end
  return { 'gone', record.generation, record.node, now }
end

redis.register_function { function_name = 'homing_1_look', callback = look, flags = { 'allow-oom' } }
