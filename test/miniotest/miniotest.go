// Package miniotest starts a real MinIO for tests, and a proxy in front of it that delays and breaks requests.
//
// Invariants:
//
//   - A test never goes without: where .bin/minio is missing, tools/minio.sh builds it.
//   - Start returns when the server answers signed requests; when the test ends, so does exactly that process.
//   - Servers share nothing: each has a port, a data folder and credentials of its own.
package miniotest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	pollInterval = 20 * time.Millisecond
	logTail      = 32 << 10
	region       = "us-east-1"
)

// Server is a MinIO process.
type Server struct {
	Addr      string // 127.0.0.1:PORT
	AccessKey string
	SecretKey string

	binary string
	dir    string
	log    *os.File
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// Start starts MinIO and ends it when the test does. If the test has failed, the end of the server's log is shown.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Launch(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("minio's log:\n%s", s.Log())
		}
	})
	return s
}

// Launch starts MinIO with its data under dir, for callers that are no tests. Call Stop.
func Launch(ctx context.Context, dir string) (*Server, error) {
	binary, err := findBinary(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{AccessKey: "key" + randomHex(8), SecretKey: "secret" + randomHex(16), binary: binary, dir: dir}
	if err := os.MkdirAll(s.data(), 0o755); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if s.Addr, err = freeAddr(ctx); err != nil {
			return nil, err
		}
		if err = s.Restart(ctx); err == nil {
			return s, nil
		}
		if try == 3 || !bytes.Contains(s.Log(), []byte("in use")) { // somebody else took the port
			return nil, err
		}
	}
}

// Restart starts the server again after Stop or Kill, at the same address and with the same data.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.spawn(); err != nil {
		return err
	}
	if err := s.await(ctx); err != nil {
		s.Stop()
		return fmt.Errorf("minio at %s: %w\n%s", s.Addr, err, s.Log())
	}
	return nil
}

func (s *Server) spawn() error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	s.log = log
	//nolint:noctx // the process ends by Stop, in good order.
	s.cmd = exec.Command(s.binary, "server", "--quiet", "--address", s.Addr, "--certs-dir", filepath.Join(s.dir, "certs"), s.data())
	s.cmd.Env = append(os.Environ(),
		"MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey, "MINIO_REGION="+region,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "HOME="+s.dir)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.exited = make(chan struct{})
	started := make(chan error)
	go func() {
		defer close(s.exited)
		unlock := dieWithParent(s.cmd)
		defer unlock()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
	}()
	return <-started
}

// await returns when the server answers a signed request.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	client, err := minio.New(s.Addr, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: region, Transport: tr, MaxRetries: 1,
	})
	if err != nil {
		return err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := client.ListBuckets(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended by itself")
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}

// Stop ends the process in good order and waits for it. It may be called again.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the process at once.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.exited:
	case <-timer.C:
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	_ = s.log.Close()
}

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns the end of what the server printed.
func (s *Server) Log() []byte {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-logTail):]
}

// CreateBucket creates a bucket, which for MinIO is a folder.
func (s *Server) CreateBucket(name string) error {
	return os.Mkdir(filepath.Join(s.data(), name), 0o755)
}

// Bucket creates a bucket and returns its name.
func (s *Server) Bucket(t testing.TB, name string) string {
	t.Helper()
	if err := s.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// StoreURL is the URL of a store under a prefix of a bucket, through minio-go, with credentials.
func (s *Server) StoreURL(bucket, prefix string) string {
	return s.storeURL(s.Addr, bucket, prefix)
}

func (s *Server) storeURL(addr, bucket, prefix string) string {
	u := url.URL{
		Scheme: "minio+http", User: url.UserPassword(s.AccessKey, s.SecretKey), Host: addr, Path: "/" + bucket,
	}
	return u.JoinPath(prefix).String()
}

// S3URL is the URL of a store under a prefix of a bucket, through the AWS SDK, which finds credentials in Env.
func (s *Server) S3URL(bucket, prefix string) string {
	u := url.URL{
		Scheme: "s3", Host: bucket, Path: "/",
		RawQuery: url.Values{"endpoint": {"http://" + s.Addr}, "region": {region}}.Encode(),
	}
	return u.JoinPath(prefix).String()
}

// Env is the environment in which the AWS SDK finds the server's credentials.
func (s *Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// findBinary returns .bin/minio of this module, after building it if it must.
func findBinary(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tools", "minio.sh"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tools/minio.sh: %w\n%s", err, stderr.Bytes())
	}
	return string(bytes.TrimSpace(stdout.Bytes())), nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools", "minio.sh")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no folder above the working directory has tools/minio.sh")
		}
		dir = parent
	}
}

func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
