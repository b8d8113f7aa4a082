run ->(env) { [200, { "content-type" => "text/plain" }, ["This is the first release\n"]] }
