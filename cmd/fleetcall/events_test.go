package main

import (
	"bufio"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestReplicasThatAreWatchedShareTheirSnapshots watches /events of three replicas. A
// snapshot's id is the moment at which one of them made it.
func TestReplicasThatAreWatchedShareTheirSnapshots(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	const replicas = 3
	var mu sync.Mutex
	seen := map[string]int{}
	shared := make(chan struct{})
	var all sync.WaitGroup
	for i := range replicas {
		r := start(t, "--redis-url", server.URL(), "--replica-id", fmt.Sprint("replica-", i))
		resp, err := r.client.Get(r.url + "/events")
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				id, ok := strings.CutPrefix(lines.Text(), "id: ")
				if !ok {
					continue
				}
				mu.Lock()
				if seen[id]++; seen[id] == replicas {
					select {
					case <-shared:
					default:
						close(shared)
					}
				}
				mu.Unlock()
			}
		})
		defer resp.Body.Close()
	}
	eventually(t, "all show one snapshot", func() bool {
		select {
		case <-shared:
			return true
		default:
			return false
		}
	})
	// The responses' bodies are closed first, and end the readers.
	t.Cleanup(all.Wait)
}
