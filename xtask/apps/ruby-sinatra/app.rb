require "sinatra/base"

class Sample < Sinatra::Base
  get("/") { "This is the first release" }
end
