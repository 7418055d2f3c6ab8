package containers

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// cuts are the chains of a container's packet filter, from which direction of its traffic
// follows.
var cuts = []struct {
	name   string
	chains []string
}{{"both ways", []string{"INPUT", "OUTPUT"}}, {"what it sends", []string{"OUTPUT"}}, {"what it is sent", []string{"INPUT"}}}

// TestAReplicaThatIsCutOff has packets between one replica and another container dropped for
// less and for more than a lease, in one direction or in both, while requests come in: nobody is
// told, and none of them may be lost.
func TestAReplicaThatIsCutOff(t *testing.T) {
	needEngine(t)
	for _, tool := range []string{"nsenter", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			t.Skipf("left out: containers that are cut off from each other, which need root, nsenter and iptables: %v", err)
		}
	}
	const delay = 50 * time.Millisecond
	p := newProject(t, "docker-compose.yml", "limits.yml", "COALESCE_MODE=distributed", "QUERY_DELAY="+delay.String())
	p.compose(nil, "build")
	p.compose(nil, "up", "--detach")
	p.healthy("replica-1", "replica-2", "replica-3", "nginx")
	p.logStatements()
	for _, other := range []string{"redis", "postgres", "nginx"} {
		for _, cut := range cuts {
			for _, lasts := range []time.Duration{time.Second, 6 * time.Second} {
				name := fmt.Sprintf("replica-2 and %s, %s, %v", other, cut.name, lasts)
				before, began := p.queries(), time.Now()
				load := newStream(p.address("nginx", "8000") + "/product/coalesced/1")
				time.Sleep(time.Second) // requests are under way when the packets go
				p.cutOff("replica-2", other, cut.chains, lasts)
				time.Sleep(lasts + time.Second) // TCP sends again what was dropped, at ever longer intervals
				load.end()
				took, queries := time.Since(began), p.queries()-before
				t.Logf("%-46s %5d requests, %d lost, the slowest %v; %d queries, %.2f of one each %v",
					name, load.sent, len(load.lost), load.slowest.Round(10*time.Millisecond), queries, float64(queries)*delay.Seconds()/took.Seconds(), delay)
				if len(load.lost) > 0 {
					t.Errorf("%s: %d of %d requests were lost: %v", name, len(load.lost), load.sent, load.lost[0])
				}
				// Who is cut off from Redis runs its own, beside the fleet's.
				if most := 2.1 * took.Seconds() / delay.Seconds(); float64(queries) > most {
					t.Errorf("%s: %d queries, and not %.0f at most", name, queries, most)
				}
				p.healthy("replica-1", "replica-2", "replica-3", "nginx")
			}
		}
	}
}

// cutOff drops what goes between two containers, by the packet filter of the first.
func (p *project) cutOff(service, other string, chains []string, lasts time.Duration) {
	p.t.Helper()
	pid, peer := strconv.Itoa(p.container(service).State.Pid), p.container(other).address()
	filter := func(args ...string) {
		p.t.Helper()
		cmd := exec.Command("nsenter", append([]string{"-t", pid, "-n", "iptables", "-w"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Errorf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	for _, chain := range chains {
		of := "-s"
		if chain == "OUTPUT" {
			of = "-d"
		}
		filter("-I", chain, of, peer, "-j", "DROP")
	}
	time.Sleep(lasts) // the cut itself
	for _, chain := range chains {
		filter("-F", chain)
	}
}
