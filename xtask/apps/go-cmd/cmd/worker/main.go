package main

import (
	"log"
	"time"
)

func main() {
	for {
		log.Print("the worker is at it")
		time.Sleep(10 * time.Second)
	}
}
