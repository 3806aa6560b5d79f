-- Run by wrk. The benchmark writes the request in front of this, and, where many keys are asked about, `keys` (a file of
-- them, WIDTH characters each, nothing between) and `placeholder`, which stands in the request for one of them.
--
-- Without `request` wrk sends the same bytes again and again and calls no Lua at all. With it the requests are put together
-- before the run: in the run that would cost as much as the server takes, and more for many keys than for few.

local WIDTH = 51
-- Requests that a run takes turns with: their keys are more than any processor's cache holds.
local TURNS = 200000

if keys then
    local requests, at, last = {}, 0, 0

    -- Arguments: which key comes first; after how many requests to end, 0 for never.
    function init(args)
        local file = assert(io.open(keys, "rb"))
        local all = file:read("*a")
        file:close()
        last = tonumber(args[2])
        local whole = wrk.format()
        local from, to = whole:find(placeholder, 1, true)
        local head, tail = whole:sub(1, from - 1), whole:sub(to + 1)
        local start = tonumber(args[1]) * WIDTH % #all
        for n = 1, last > 0 and last or TURNS do
            requests[n] = head .. all:sub(start + 1, start + WIDTH) .. tail
            start = (start + WIDTH) % #all
        end
    end

    function request()
        if at == #requests then
            if last > 0 then
                -- wrk itself would wait for its time to be up.
                io.write(string.format("measured %d 1 0 0 0 0\n", last))
                os.exit(0)
            end
            at = 0
        end
        at = at + 1
        return requests[at]
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("measured %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
