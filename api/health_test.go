package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthChecksAtTheSameTimeShareOnePingThatOutlivesWhoeverLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		pings := 0
		release := make(chan struct{})
		ask, _ := inside(t, &store{ping: func(ctx context.Context) error {
			mu.Lock()
			pings++
			mu.Unlock()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		first, leave := context.WithCancel(t.Context())
		left := make(chan *httptest.ResponseRecorder, 1)
		go func() { left <- ask(first, "/health", "first") }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				if w := ask(t.Context(), "/health", "another"); w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		synctest.Wait()
		leave()
		<-left
		close(release)
		all.Wait()
		if pings != 1 {
			t.Errorf("%d pings, want one for all", pings)
		}
		if ask(t.Context(), "/health", "later"); pings != 2 {
			t.Errorf("%d pings, want a new one for who comes later", pings)
		}
	})
}

func TestAPingThatHangsIsGivenUpThoughThereAlwaysIsSomebodyWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		ask, _ := inside(t, &store{ping: func(ctx context.Context) error {
			once.Do(func() { <-ctx.Done() })
			return ctx.Err()
		}})
		var all sync.WaitGroup
		answers := make([]int, 4)
		for i := range answers {
			all.Go(func() { answers[i] = ask(t.Context(), "/health", "waits").Code })
			time.Sleep(1500 * time.Millisecond) // of the bubble's: less than a ping has
		}
		all.Wait()
		if want := []int{503, 503, 200, 200}; !slices.Equal(answers, want) {
			t.Errorf("statuses %v, want %v", answers, want)
		}
	})
}
