-- homing_1_disconnect: an operator ends sessions of a user; devices and messages stay.
--   KEYS  1 devices
--   ARGV  1 JSON {user, channels, devices: [name, ...] or null for all, reason, refuse_tokens}
--         refuse_tokens: tokens that were issued until now are refused from now on. Then no session stays: those of
--         other devices than the named ones are told that their token is refused.
--   reply number of devices that had an owner and have none now
-- A function because a session that attaches in between, or a token that is checked in between, would slip through.
local function disconnect(keys, argv)
  local devices = keys[1]
  local request = cjson.decode(argv[1])
  local named = nil
  if request.devices ~= cjson.null then
    named = {}
    for _, device in ipairs(request.devices) do named[device] = true end
  end
  if request.refuse_tokens then
    redis.call('HSET', devices, REFUSE_BEFORE, whole(math.floor(now_us() / 1000000)))
  end
  local count = 0
  for device, record in pairs((all_devices(devices))) do
    local kind, reason = nil, ''
    if not named or named[device] then
      kind, reason = 'kicked', request.reason
    elseif request.refuse_tokens then
      kind = 'refused'
    end
    if kind and (record.owner ~= '' or record.struck) then
      if record.owner ~= '' then count = count + 1 end
      dismiss(devices, request.channels, request.user, device, record, kind, reason)
    end
  end
  return count
end

redis.register_function { function_name = 'homing_1_disconnect', callback = disconnect, flags = { 'allow-oom' } }
