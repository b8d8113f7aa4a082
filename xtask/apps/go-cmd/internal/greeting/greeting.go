// Package greeting holds what the server says.
package greeting

// Text is the words.
const Text = "This is the first release"
