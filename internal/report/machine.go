package report

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine describes this machine and this program. Facts that the system does not tell
// are left out.
func Machine(version string) []Fact {
	facts := []Fact{
		{"System", runtime.GOOS + "/" + runtime.GOARCH},
		{"Processors", fmt.Sprintf("%d, of which Go uses %d", runtime.NumCPU(), runtime.GOMAXPROCS(0))},
	}
	if model := field("/proc/cpuinfo", "model name"); model != "" {
		facts = append(facts, Fact{"Processor", model})
	}
	kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64)
	if kilobytes > 0 {
		facts = append(facts, Fact{"Memory", fmt.Sprintf("%.1f GiB", kilobytes/(1<<20))})
	}
	return append(facts, Fact{"Program", "fleetcall " + version + ", " + runtime.Version()})
}

// field returns the first value of a name in a file of "name: value" lines.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
