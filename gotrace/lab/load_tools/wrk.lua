-- What wrk knows at its end, as one line of JSON: `path` is set in front of this.
-- It defines neither request() nor response(), so that the load is the one wrk makes without a script.

-- latency(i) walks from the smallest value to the i-th one. That is over in a moment for all but the widest spreads.
local patience = 20

function done(summary, latency, requests)
  local file = assert(io.open(path, "w"))
  local errors = summary.errors
  file:write(string.format('{"requests": %d, "duration_us": %d, ', summary.requests, summary.duration))
  file:write(string.format('"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, ',
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
  file:write(string.format('"min_us": %d, "max_us": %d, "mean_us": %.3f, "percentiles_us": {',
    latency.min, latency.max, latency.mean))
  for i, percent in ipairs({50, 75, 90, 95, 99, 99.9, 99.99}) do
    file:write(string.format('%s"p%g": %d', i > 1 and ", " or "", percent, latency:percentile(percent)))
  end
  file:write('}, "histogram": ')
  local pairs_of, begin, whole = {}, os.clock(), true
  for i = 1, #latency do
    local value, count = latency(i)
    pairs_of[i] = string.format("[%d, %d]", value, count)
    if i % 100 == 0 and os.clock() - begin > patience then
      whole = false
      break
    end
  end
  file:write(whole and "[" .. table.concat(pairs_of, ", ") .. "]" or "null", "}\n")
  file:close()
end
