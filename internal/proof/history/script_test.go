package history_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

var settings = history.Settings{
	LeaseTTL: 3 * time.Second, FlightTimeout: 30 * time.Second, RedisTimeout: 250 * time.Millisecond, MaxTakeovers: 2,
}

// parse reads a history that was written by hand, with a record on each line:
//
//	<ms> <process> <kind> <arguments> [name=value]
//
// The kinds are
//
//	call <call> [by=<ms>] [of=<batch>]
//	return <call> <role> <outcome> [<execution>] [flight=<execution>]
//	start <execution> <role> [cause=<cause>] [takeover=yes]
//	end <execution> <outcome>
//	over <execution> [asked=<ms>]
//	taken|renewed|lost|released <execution> [asked=<ms>]
//	forget <name>
//	forgotten <name> [error=<text>]
//	fault|faultend <name> <process or *> [<effect>,...] [keys=<key>,...] [injection=<name>]
//	closing, exit
//
// An execution x belongs to the flight "f-x". The key is "k", unless the line has
// key=<key>. parse adds a Begin record for each process at time 0, and an exit at the
// end unless the process is killed or has one already.
func parse(text string, set history.Settings) []history.Record {
	var records []history.Record
	ends := map[string]bool{}
	last := int64(0)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		r := parseLine(words)
		last = max(last, r.At)
		switch {
		case r.Kind == history.FaultBegin && r.Effects.Kills:
			ends[r.Target] = true
		case r.Kind == history.Exit:
			ends[r.Process] = true
		}
		if _, known := ends[r.Process]; !known {
			ends[r.Process] = false
			if r.Process != "driver" {
				records = append(records, history.Record{Process: r.Process, Kind: history.Begin, Settings: &set})
			}
		}
		records = append(records, r)
	}
	for process, ended := range ends {
		if !ended {
			records = append(records,
				history.Record{At: last + 1, Process: process, Kind: history.Closing},
				history.Record{At: last + 2, Process: process, Kind: history.Exit})
		}
	}
	slices.SortStableFunc(records, func(a, b history.Record) int { return cmp.Compare(a.At, b.At) })
	return records
}

func parseLine(words []string) history.Record {
	named := map[string]string{}
	var args []string
	for _, word := range words[2:] {
		if name, value, ok := strings.Cut(word, "="); ok {
			named[name] = strings.ReplaceAll(value, "_", " ")
		} else {
			args = append(args, strings.ReplaceAll(word, "_", " "))
		}
	}
	r := history.Record{At: millis(words[0]), Process: words[1], Key: "k", Cause: named["cause"], Error: named["error"], Takeover: named["takeover"] != ""}
	if key := named["key"]; key != "" {
		r.Key = key
	}
	switch args[0] {
	case "call":
		r.Kind, r.Call, r.Batch = history.Called, args[1], named["of"]
		if by := named["by"]; by != "" {
			r.Deadline = millis(by)
		}
	case "return":
		r.Kind, r.Call, r.Role, r.Outcome = history.Returned, args[1], args[2], history.Outcome(args[3])
		if len(args) > 4 {
			r.Execution, r.Flight = args[4], "f-"+args[4]
		}
		if flight := named["flight"]; flight != "" {
			r.Flight = "f-" + flight
		}
	case "start":
		r.Kind, r.Execution, r.Flight, r.Role = history.Started, args[1], "f-"+args[1], args[2]
	case "end":
		r.Kind, r.Execution, r.Flight, r.Outcome = history.Ended, args[1], "f-"+args[1], history.Outcome(args[2])
	case "over":
		r.Kind, r.Execution, r.Flight, r.Asked = history.Over, args[1], "f-"+args[1], r.At
		if asked := named["asked"]; asked != "" {
			r.Asked = millis(asked)
		}
	case "taken", "renewed", "lost", "released":
		r.Kind, r.State, r.Flight, r.Asked = history.LeaseIs, args[0], "f-"+args[1], r.At-int64(time.Millisecond)
		if asked := named["asked"]; asked != "" {
			r.Asked = millis(asked)
		}
	case "forget", "forgotten":
		r.Kind, r.Call = history.Kind(args[0]), args[1]
	case "fault", "faultend":
		r.Kind, r.Key, r.Fault, r.Target = history.Kind(strings.Replace(args[0]+"begin", "endbegin", "end", 1)), "", args[1], strings.Trim(args[2], "*")
		r.Effects, r.Injection = &history.Effects{}, named["injection"]
		if keys := named["keys"]; keys != "" {
			r.Keys = strings.Split(keys, ",")
		}
		for _, effect := range args[3:] {
			set(r.Effects, effect)
		}
	case "closing", "exit":
		r.Kind, r.Key = history.Kind(args[0]), ""
	default:
		panic(fmt.Sprintf("no kind %q", args[0]))
	}
	return r
}

func set(e *history.Effects, effects string) {
	for effect := range strings.SplitSeq(effects, ",") {
		switch effect {
		case "keys":
			e.LosesKeys = true
		case "clock":
			e.SetsClock = true
		case "unusable":
			e.Unusable = true
		case "unreliable":
			e.Unreliable = true
		case "holds":
			e.Holds = true
		case "messages":
			e.LosesMessages = true
		case "garbage":
			e.Garbage = true
		case "stops":
			e.Stops = true
		case "kills":
			e.Kills = true
		default:
			delay, err := time.ParseDuration(effect)
			if err != nil {
				panic(err)
			}
			e.Delay = delay
		}
	}
}

func millis(text string) int64 {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return int64(n * float64(time.Millisecond))
}
