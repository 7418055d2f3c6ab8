-- count: learn how many keys the fleet has forgotten, or count some more and tell the replicas of each.
-- KEYS  counter
-- ARGV  control channel, then a notice of each key; none to learn
-- reply {when the counter began (µs), how many}; {0, 0} when there is none
-- Redis may lose the counter. One that began at another time is another one. The number of a
-- key stands at the end of its notice, and is counted as that is published: no replica can read
-- a number whose notice is yet to come.
local counter = redis.pcall('HMGET', KEYS[1], 'began', 'n')
local began, n = tonumber(counter[1]), tonumber(counter[2])
local keys = #ARGV - 1
if keys > 0 then
  if not began or not n then
    local time = redis.call('TIME')
    began, n = time[1] * 1000000 + time[2], 0
    redis.call('DEL', KEYS[1])
  end
  redis.call('HSET', KEYS[1], 'began', string.format('%.0f', began), 'n', n + keys)
  for i = 1, keys do
    redis.call('PUBLISH', ARGV[1], ARGV[i + 1] .. string.format('%.0f %.0f', began, n + i))
  end
  n = n + keys
end
return {began or 0, n or 0}
