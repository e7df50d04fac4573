-- homing_1_trim: removes what every device of the user has acknowledged.
--   KEYS  1 inbox  2 devices
--   ARGV  none
--   reply number of entries removed
-- A function because the minimum over all groups is only true while no device is added, removed or reads.
local function trim(keys)
  return trim_acknowledged(keys[1], keys[2])
end

redis.register_function { function_name = 'homing_1_trim', callback = trim, flags = { 'allow-oom' } }
