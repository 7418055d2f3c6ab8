package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisAddr is the examples' private Redis.
var redisAddr string

// TestMain starts a redis-server by itself, because this module needs nothing but
// go-redis, not for its tests either.
func TestMain(m *testing.M) {
	code, err := withRedis(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withRedis(run func() int) (code int, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return 0, errors.New("The examples of this package run against a redis-server, which is not installed. \"make setup\" installs it; on Debian or Ubuntu: apt-get install redis-server")
	}
	dir, err := os.MkdirTemp("", "fleetcall-redis-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for range 10 { // another process may take the port first
		var stop func() error
		if stop, err = startRedis(path, dir); err == nil {
			defer func() { err = errors.Join(err, stop()) }()
			return run(), nil
		}
	}
	return 0, err
}

// startRedis starts a redis-server on a free port, and returns when it answers.
func startRedis(path, dir string) (stop func() error, err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	redisAddr = free.Addr().String()
	_, port, err := net.SplitHostPort(redisAddr)
	if err := errors.Join(err, free.Close()); err != nil {
		return nil, err
	}
	server := exec.Command(path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", dir)
	if err := server.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer func() { _ = client.Close() }()
	for client.Ping(context.Background()).Err() != nil {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("redis-server on %s ended before it answered: %w", redisAddr, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return func() error {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return <-ended
	}, nil
}
