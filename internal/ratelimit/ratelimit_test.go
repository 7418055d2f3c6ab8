package ratelimit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestEachKeyIsAllowedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Keyed
		if !k.Allow("a") || k.Allow("a") || !k.Allow("b") {
			t.Error("not once for each key")
		}
		time.Sleep(time.Second)
		if !k.Allow("a") || k.Allow("a") {
			t.Error("not once more after a second")
		}
	})
}
