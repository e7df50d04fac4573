-- homing_1_remove: forgets a device (logout, deletion).
--   KEYS  1 inbox  2 devices
--   ARGV  1 user  2 device  3 channel prefix  4 generation that must still be recorded, or ""
--   reply 1 if the device was known (and had that generation), else 0
-- A function because a trim between destroying the group and forgetting the record would see a device without group.
local function remove(keys, argv)
  local inbox, devices = keys[1], keys[2]
  local user, device, channels, generation = argv[1], argv[2], argv[3], argv[4]
  local record = load_device(devices, device)
  if not record or (generation ~= '' and record.generation ~= generation) then return 0 end
  remove_device(inbox, devices, channels, user, device, record)
  return 1
end

redis.register_function { function_name = 'homing_1_remove', callback = remove, flags = { 'allow-oom' } }

-- homing_1_purge: forgets a user: every device and the inbox with its messages.
--   KEYS  1 inbox  2 devices
--   ARGV  1 user  2 channel prefix
--   reply number of devices that were known
-- A function for the same reason; the incarnation stays in the hash until the janitor finds the user empty.
local function purge(keys, argv)
  local inbox, devices = keys[1], keys[2]
  local records, count = all_devices(devices)
  redis.call('DEL', inbox)
  for device, record in pairs(records) do
    redis.call('HDEL', devices, device)
    tell(argv[2], record.owner, { kind = 'removed', user = argv[1], device = device, generation = record.generation })
  end
  if count > 0 then raise_incarnation(devices) end
  return count
end

redis.register_function { function_name = 'homing_1_purge', callback = purge, flags = { 'allow-oom' } }
