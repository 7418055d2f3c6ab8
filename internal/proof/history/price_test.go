package history_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// priceExamples name the executions that are beyond the one of their round.
var priceExamples = []struct{ name, beyond, text string }{
	{"a flight that two share", "", usualFlight},
	{"a flight after another", "", usualFlight + `
		910 r2 call d
		912 r2 taken y
		913 r2 start y leader
		950 r2 end y value
		951 r2 return d leader value y`},
	{"a flight of a caller whose join came too late", "", usualFlight + `
		880 r3 call d
		906 r3 taken y
		907 r3 start y leader
		950 r3 end y value
		951 r3 return d leader value y`},
	{"a fallback while another replica runs the function", "y", usualFlight + `
		500 r3 call d
		510 r3 start y fallback cause=timeout
		700 r3 end y value
		701 r3 return d fallback value y`},
	{"a fallback of one that had waited in vain", "y", usualFlight + `
		500 r3 call d
		2000 r3 start y fallback cause=subscription
		2100 r3 end y value
		2101 r3 return d fallback value y`},
	{"a fallback in whose place another one leads", "y", `
		500 r3 call d
		510 r3 start y fallback cause=timeout
		520 r1 call e
		522 r1 taken z
		523 r1 start z leader
		700 r1 end z value
		701 r1 return e leader value z
		720 r1 call f
		722 r1 taken w
		723 r1 start w leader
		800 r1 end w value
		801 r1 return f leader value w
		2000 r3 end y value
		2001 r3 return d fallback value y`},
	{"each replica for itself", "y z", `
		500 r1 start x fallback cause=down
		501 r2 start y fallback cause=down
		502 r3 start z fallback cause=down
		600 r1 end x value
		601 r2 end y value
		602 r3 end z value`},
	{"a fallback after another had ended", "", `
		500 r1 start x fallback cause=down
		600 r1 end x value
		700 r2 start y fallback cause=down
		800 r2 end y value`},
	{"a flight of one that came when its leader had died", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		500 driver fault kill r1 kills
		501 driver faultend kill r1
		600 r2 call b
		3103 r2 taken y
		3104 r2 start y leader
		3600 r2 end y value
		3601 r2 return b leader value y`},
	{"a takeover", "y", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call b
		500 driver fault kill r1 kills
		501 driver faultend kill r1
		3103 r2 taken y
		3104 r2 start y leader takeover=yes
		3600 r2 end y value
		3601 r2 return b leader value y`},
	{"a flight after one that was given up", "", `
		100 r1 call a by=300
		102 r1 taken x
		103 r1 start x leader
		300 r1 return a none cancelled
		302 r1 released x
		400 r2 call b
		402 r2 taken y
		403 r2 start y leader
		700 r2 end y value
		701 r2 return b leader value y
		2800 r1 end x value`},
	{"a flight after one whose outcome was nobody's", "", `
		100 r1 call a by=300
		102 r1 taken x
		103 r1 start x leader
		300 r1 return a none cancelled
		400 r2 call b
		403 r2 taken y
		404 r2 start y leader
		700 r2 end y value
		701 r2 return b leader value y
		2800 r1 end x cancelled`},
	{"a flight after a Forget", "", usualFlight + `
		400 r3 forget g
		401 r3 forgotten g
		500 r3 call d
		502 r3 taken y
		503 r3 start y leader
		800 r3 end y value
		801 r3 return d leader value y`},
	{"a result that cannot travel", "", usualFlight + `
		500 r3 call d
		907 r3 start y fallback cause=too_large
		950 r3 end y value
		951 r3 return d fallback value y`},
}

func TestAnExecutionIsBeyondItsRoundsOneWhenAnEarlierOneWouldHaveDone(t *testing.T) {
	for _, test := range priceExamples {
		t.Run(test.name, func(t *testing.T) {
			beyond := history.Check(parse(test.text, settings)).Beyond
			if got := strings.Join(slices.Sorted(maps.Keys(beyond)), " "); got != test.beyond {
				t.Errorf("beyond: %q, want %q", got, test.beyond)
			}
		})
	}
}
