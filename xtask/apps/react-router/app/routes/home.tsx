export function meta() {
  return [{ title: "React Router" }];
}

export default function Home() {
  return <h1>This is the first release</h1>;
}
