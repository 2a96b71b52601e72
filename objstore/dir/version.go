//go:build linux || darwin

package dir

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// state is what a version stands for: what a stat of the file says without reading it.
type state struct {
	modified int64 // ns since 1970
	size     int64
}

func stateOf(st *unix.Stat_t) state {
	return state{modified: unix.TimespecToNsec(st.Mtim), size: st.Size}
}

func (v state) version() objstore.Version {
	b := make([]byte, 0, 32)
	b = strconv.AppendInt(b, v.modified, 16)
	b = append(b, '-')
	b = strconv.AppendInt(b, v.size, 16)
	return objstore.Version(b)
}

func parseVersion(v objstore.Version) (state, bool) {
	m, s, found := strings.Cut(string(v), "-")
	modified, err1 := strconv.ParseInt(m, 16, 64)
	size, err2 := strconv.ParseInt(s, 16, 64)
	st := state{modified: modified, size: size}
	return st, found && err1 == nil && err2 == nil && st.version() == v
}

func infoOf(key string, st *unix.Stat_t) objstore.Info {
	v := stateOf(st)
	return objstore.Info{Key: key, Size: v.size, Version: v.version(), Modified: time.Unix(0, v.modified)}
}

// split returns the folder ("." for the root) and the name of a key.
func split(key string) (folder, name string) {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		return key[:i], key[i+1:]
	}
	return ".", key
}
