<?php

namespace Sample;

class Greeting
{
    public function text(): string
    {
        return 'This is the first release';
    }
}
