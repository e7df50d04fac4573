-- homing_1_lock: takes a lock, or renews it.
--   KEYS  1 lock
--   ARGV  1 the holder's random token  2 ms after which the lock falls to whoever asks
--   reply 1 if the lock is the holder's now, else 0
-- A function because SET NX is refused when memory is full, which is when the janitor is needed most, and because a
-- renewal must not prolong a lock that went to somebody else in between.
local function lock(keys, argv)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= argv[1] then return 0 end
  redis.call('SET', keys[1], argv[1], 'PX', argv[2])
  return 1
end

redis.register_function { function_name = 'homing_1_lock', callback = lock, flags = { 'allow-oom' } }

-- homing_1_unlock: gives a lock back.
--   KEYS  1 lock
--   ARGV  1 the holder's token
--   reply 1 if the lock was the holder's, else 0
-- A function because it is a compare-and-delete.
local function unlock(keys, argv)
  if redis.call('GET', keys[1]) ~= argv[1] then return 0 end
  redis.call('DEL', keys[1])
  return 1
end

redis.register_function { function_name = 'homing_1_unlock', callback = unlock, flags = { 'allow-oom' } }
