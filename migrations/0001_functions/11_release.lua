-- homing_1_release: says that a node will hand out nothing more for a device on behalf of a generation.
--   KEYS  1 devices
--   ARGV  1 user  2 device  3 channel prefix  4 owner  5 generation  6 "1" if the session ended
--         7 nonce of the session's attach, or "": a session that ended while its attach had no answer knows no
--           generation, and may own the device all the same
--   reply "ended" (the record was ours: the device is offline now), "told" (the owner re-reads its PEL), "nobody"
-- A function because the owner who must be told is the one recorded at this very moment (A -> B -> C), and because
-- going offline must not overwrite a session that attached in between.
local function release(keys, argv)
  local devices = keys[1]
  local user, device, channels, owner, generation, ended = argv[1], argv[2], argv[3], argv[4], argv[5], argv[6]
  local nonce = argv[7] or ''
  local record = load_device(devices, device)
  if not record then return 'nobody' end
  local ours = record.generation == generation or (nonce ~= '' and record.nonce == nonce)
  if record.owner == owner and ours then
    if ended ~= '1' then return 'nobody' end
    record.owner = ''
    record.last_seen_ms = now_ms()
    save_device(devices, device, record)
    return 'ended'
  end
  if record.owner == '' then
    -- It was judged dead, and has come to its end all the same: it will not wake up.
    if ours and ended == '1' and record.struck == owner then
      record.struck = nil
      save_device(devices, device, record)
    end
    return 'nobody'
  end
  tell(channels, record.owner, { kind = 'release', user = user, device = device })
  return 'told'
end

redis.register_function { function_name = 'homing_1_release', callback = release, flags = { 'allow-oom' } }
