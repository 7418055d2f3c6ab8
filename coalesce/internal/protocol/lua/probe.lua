-- probe: learn whether Redis runs scripts and takes writes.
-- KEYS  a key that is for probes alone
-- ARGV  how long it lives (ms)
-- reply 1
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
return 1
