// Checks the files of a log with golang.org/x/mod/sumdb: the signed checkpoint, each entry, and proofs.
//
// Usage: sumdb_check FOLDER [OLDER_CHECKPOINT]. FOLDER has `key`, `checkpoint` and `tile/`, as c2sp.org/tlog-tiles names
// them. Prints the size; the first problem ends the program with status 1.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string, older []string) error {
	key, err := os.ReadFile(filepath.Join(folder, "key"))
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	head, err := readHead(filepath.Join(folder, "checkpoint"), verifier)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(head, files(folder))
	if err := checkEntries(folder, head, hashes); err != nil {
		return err
	}
	if head.N > 0 {
		for _, index := range []int64{0, head.N / 2, head.N - 1} {
			if err := checkRecord(head, index, hashes); err != nil {
				return err
			}
		}
	}
	for _, path := range older {
		old, err := readHead(path, verifier)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(head.N, old.N, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, head.N, head.Hash, old.N, old.Hash); err != nil {
			return err
		}
	}
	fmt.Println(head.N)
	return nil
}

func readHead(path string, verifier note.Verifier) (tlog.Tree, error) {
	var head tlog.Tree
	text, err := os.ReadFile(path)
	if err != nil {
		return head, err
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return head, err
	}
	var root string
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return head, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	if _, err := fmt.Sscan(lines[1], &head.N); err != nil {
		return head, err
	}
	root = lines[2]
	head.Hash, err = tlog.ParseHash(root)
	return head, err
}

func checkEntries(folder string, head tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < head.N; first += 256 {
		width := min(256, head.N-first)
		content, err := os.ReadFile(filepath.Join(folder, "tile", "entries", tileNumber(first/256, width)))
		if err != nil {
			return err
		}
		for index := first; index < first+width; index++ {
			if len(content) < 2 || len(content) < 2+int(binary.BigEndian.Uint16(content)) {
				return fmt.Errorf("entry %d: missing", index)
			}
			end := 2 + int(binary.BigEndian.Uint16(content))
			found, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return err
			}
			if found[0] != tlog.RecordHash(content[2:end]) {
				return fmt.Errorf("entry %d: changed", index)
			}
			content = content[end:]
		}
	}
	return nil
}

func checkRecord(head tlog.Tree, index int64, hashes tlog.HashReader) error {
	found, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return err
	}
	proof, err := tlog.ProveRecord(head.N, index, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, head.N, head.Hash, index, found[0])
}

// files reads tiles from a folder.
type files string

func (folder files) Height() int { return height }

func (folder files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	contents := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := filepath.Join(string(folder), "tile", fmt.Sprint(tile.L), tileNumber(tile.N, int64(tile.W)))
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		contents[i] = content
	}
	return contents, nil
}

func (folder files) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func tileNumber(number, width int64) string {
	text := fmt.Sprintf("%03d", number%1000)
	for number /= 1000; number > 0; number /= 1000 {
		text = fmt.Sprintf("x%03d/%s", number%1000, text)
	}
	if width < 256 {
		text += fmt.Sprintf(".p/%d", width)
	}
	return text
}
