//go:build linux || darwin

package dir

import "testing"

// Hook makes f run before each step that touches the disk.
func Hook(s *Store, f func(step, subject string) error) { s.hook = f }

// ForceNamed makes the store work as on a file system without unnamed files.
func ForceNamed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.session.begin(); err != nil {
		t.Fatal(err)
	}
	s.session.unnamed = false
}

// Unnamed reports whether the file system has unnamed files.
func Unnamed(s *Store) bool { return s.session.unnamed }
